"""Artifacts: what stages hand to each other. Everything that other parts of the code need, under one name.

files.py writes, hashing.py hashes, manifests.py says whether a stage is done, provenance.py what it was made with,
verify.py reads it all again.
"""

from recipes.pipeline.files import atomic_write_json, atomic_write_text, canonical_json, config_text, read_config
from recipes.pipeline.hashing import CONTENT_FILE, content_hash, sha256_file, walk_files
from recipes.pipeline.manifests import (
    CONFIG,
    MANIFEST,
    OUTPUTS,
    PIPELINE,
    config_sha256,
    fingerprint,
    identity,
    input_hashes,
    input_paths,
    is_done,
    outputs_present,
    producer_of,
    read_manifest,
    read_start,
    record_start,
    write_manifest,
)
from recipes.pipeline.provenance import git_commit, package_versions
from recipes.pipeline.verify import verify_run

__all__ = [
    "CONFIG",
    "CONTENT_FILE",
    "MANIFEST",
    "OUTPUTS",
    "PIPELINE",
    "atomic_write_json",
    "atomic_write_text",
    "canonical_json",
    "config_sha256",
    "config_text",
    "content_hash",
    "fingerprint",
    "git_commit",
    "identity",
    "input_hashes",
    "input_paths",
    "is_done",
    "outputs_present",
    "package_versions",
    "producer_of",
    "read_config",
    "read_manifest",
    "read_start",
    "record_start",
    "sha256_file",
    "verify_run",
    "walk_files",
    "write_manifest",
]
