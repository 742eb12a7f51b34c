/* A stand-in for pyxis: registers its options with srun, enters no container, and hands what was asked to the task as
 * FAKE_PYXIS_<OPTION>, so that a test can look at it. A flag is "1".
 *
 *     gcc -shared -fPIC -o fake_pyxis.so fake_pyxis.c      # needs slurm/spank.h (libslurm-dev)
 */
#include <ctype.h>
#include <slurm/spank.h>
#include <stdio.h>

SPANK_PLUGIN(fake_pyxis, 1);

static const struct { char *name; int has_value; } OPTIONS[] = {
    {"container-image", 1},
    {"container-mounts", 1},
    {"container-workdir", 1},
    {"container-name", 1},
    {"container-env", 1},
    {"container-save", 1},
    {"container-mount-home", 0},
    {"no-container-mount-home", 0},
    {"container-remap-root", 0},
    {"no-container-remap-root", 0},
    {"container-entrypoint", 0},
    {"no-container-entrypoint", 0},
    {"container-writable", 0},
    {"container-readonly", 0},
};
enum { COUNT = sizeof OPTIONS / sizeof OPTIONS[0] };

static char asked[COUNT][8192];

static int remember(int option, const char *value, int remote)
{
    (void)remote;
    snprintf(asked[option], sizeof asked[option], "%s", OPTIONS[option].has_value ? value : "1");
    return 0;
}

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < COUNT; i++) {
        struct spank_option option = {
            .name = OPTIONS[i].name,
            .arginfo = OPTIONS[i].has_value ? "VALUE" : NULL,
            .usage = "[fake pyxis] only recorded",
            .has_arg = OPTIONS[i].has_value,
            .val = i,
            .cb = remember,
        };
        if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
            return -1;
    }
    return 0;
}

int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < COUNT; i++) {
        char variable[64];
        snprintf(variable, sizeof variable, "FAKE_PYXIS_%s", OPTIONS[i].name);
        for (char *c = variable; *c; c++)
            *c = *c == '-' ? '_' : toupper((unsigned char)*c);
        if (asked[i][0] && spank_setenv(spank, variable, asked[i], 1) != ESPANK_SUCCESS)
            return -1;
    }
    return 0;
}
