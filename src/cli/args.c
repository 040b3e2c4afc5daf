/* Reads a command line by the command's table of options and, for commands that draw, by the library's table of
 * parameters: `--name value`, `--name=value`, `-o value`, switches, and `--` before words that begin with a dash. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* Names in messages and arguments may hold anything; a line stays a line. */
static void print_line(const char *text)
{
    fputs("sumi: ", stderr);
    for (; *text; text++)
        fputc((unsigned char)*text < 32 || *text == 127 ? ' ' : *text, stderr);
    fputc('\n', stderr);
}

int cli_fail(int code, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_line(text);
    return code;
}

int cli_failed(sumi_context *ctx, sumi_status st)
{
    const char *why = sumi_error(ctx);
    if (st == SUMI_E_CANCELLED && cli_stopped())
        return cli_fail(128 + cli_stopped(), "stopped");
    return cli_fail(st == SUMI_E_ARG ? EXIT_USAGE : EXIT_BAD, "%s", why[0] ? why : "failed, and the library gave no reason");
}

bool cli_words(const cli_args *a, int n, const char *what)
{
    if (a->nword > n)
        cli_fail(EXIT_USAGE, "%s takes %s, and '%.80s' is one word too many", a->command->name, n ? what : "no words",
                 a->word[n]);
    else if (a->nword < n)
        cli_fail(EXIT_USAGE, "%s needs %s; see sumi help %s", a->command->name, what, a->command->name);
    return a->nword == n;
}

/* ---- nearest name ---- */

static int min3(int a, int b, int c) { return a < b ? (a < c ? a : c) : (b < c ? b : c); }

/* Edit distance with neighbours swapped counting as one (optimal string alignment); names of at most 31 letters. */
static int distance(const char *a, size_t n, const char *b)
{
    int d[33][33];
    size_t m = strlen(b);
    if (n > 31 || m > 31)
        return 99;
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            if (!i || !j) {
                d[i][j] = (int)(i + j);
                continue;
            }
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    return d[n][m];
}

const char *cli_nearest(const char *word, size_t n, const char *(*next)(const void *arg, size_t i), const void *arg)
{
    const char *best = NULL, *name;
    int least = n < 4 ? 2 : 3; /* one slip in a short word, two in a longer one */
    for (size_t i = 0; (name = next(arg, i)); i++) {
        int d = distance(word, n, name);
        if (d < least) {
            least = d;
            best = name;
        }
    }
    return best;
}

/* ---- options ---- */

const cli_option *cli_option_find(const cli_command *c, const char *name, size_t n)
{
    for (const cli_option *o = c->options; o->name; o++)
        if (strlen(o->name) == n && !memcmp(o->name, name, n))
            return o;
    return NULL;
}

static const cli_option *find_letter(const cli_command *c, char letter)
{
    for (const cli_option *o = c->options; o->name; o++)
        if (o->letter == letter)
            return o;
    return NULL;
}

/* By its flag or any other name it has: --subseed, --cfg_scale. */
static const sumi_param_info *find_param(const cli_command *c, const char *name, size_t n)
{
    char word[64] = "";
    size_t count = 0;
    const sumi_param_info *t = sumi_params(&count);
    for (size_t i = 0; c->request && i < count; i++)
        if (strlen(t[i].flag) == n && !memcmp(t[i].flag, name, n))
            return &t[i];
    const sumi_param_info *p = c->request && n < sizeof word ? sumi_param_find(memcpy(word, name, n)) : NULL;
    return p && strcmp(p->name, "prompt") ? p : NULL;
}

static const char *option_name(const void *arg, size_t i)
{
    const cli_command *c = arg;
    size_t n = 0, count = 0;
    while (c->options[n].name)
        if (n++ == i)
            return c->options[i].name;
    const sumi_param_info *t = sumi_params(&count);
    return c->request && i - n < count ? t[i - n].flag : NULL;
}

static bool set_number(cli_values *v, const cli_option *o, const char *text)
{
    void *at = (char *)v + o->at;
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    bool whole = o->kind != CLI_FLOAT;
    if (end == text || *end || errno == ERANGE || !isfinite(x) || (whole && x != floor(x)))
        return cli_fail(0, "--%s: '%.80s' is not a %snumber", o->name, text, whole ? "whole " : "");
    if (x < o->low || x > o->high)
        return cli_fail(0, "--%s: %.80s is out of range, %.16g to %.16g", o->name, text, o->low, o->high);
    if (o->kind == CLI_INT)
        *(int *)at = (int)x;
    else if (o->kind == CLI_INT64)
        *(int64_t *)at = (int64_t)x;
    else
        *(float *)at = (float)x;
    return true;
}

static void add_setting(cli_args *a, const char *name, const char *value) { a->set[a->nset++] = (cli_setting){name, value}; }

/* "WxH" as two settings, whose texts live in a->size. */
static bool set_size(cli_args *a, const cli_option *o, const char *text)
{
    bool seed = o->name[1] == 'e'; /* --seed-resize, not --size */
    size_t w = strspn(text, "0123456789"), h = text[w] ? strspn(text + w + 1, "0123456789") : 0;
    if (!w || !h || w > 9 || h > 9 || (text[w] != 'x' && text[w] != 'X') || text[w + 1 + h])
        return cli_fail(0, "--%s: '%.80s' is not WIDTHxHEIGHT, such as 128x128", o->name, text);
    char *width = a->size[a->nsize++], *height = a->size[a->nsize++];
    memcpy(width, text, w);
    memcpy(height, text + w + 1, h);
    width[w] = height[h] = 0;
    add_setting(a, seed ? "seed-resize-width" : "width", width);
    add_setting(a, seed ? "seed-resize-height" : "height", height);
    return true;
}

static bool set_option(cli_args *a, const cli_option *o, const char *value)
{
    switch (o->kind) {
    case CLI_HELP: a->help = true; return true;
    case CLI_SWITCH: *(bool *)((char *)&a->v + o->at) = true; return true;
    case CLI_TEXT: *(const char **)((char *)&a->v + o->at) = value; return true;
    case CLI_SIZE: return set_size(a, o, value);
    default: return set_number(&a->v, o, value);
    }
}

static bool unknown(const cli_command *c, const char *arg, size_t n)
{
    const char *near = cli_nearest(arg + 2, n, option_name, c);
    if (near)
        return cli_fail(0, "unknown option --%.*s; did you mean --%s?", (int)(n > 40 ? 40 : n), arg + 2, near);
    return cli_fail(0, "unknown option --%.*s; see sumi help %s", (int)(n > 40 ? 40 : n), arg + 2, c->name);
}

/* One "--..." or "-x"; *i moves past its value. */
static bool read_option(cli_args *a, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    const cli_option *o = NULL;
    const sumi_param_info *p = NULL;
    size_t n = 0;
    if (arg[1] == '-') {
        n = strcspn(arg + 2, "=");
        o = cli_option_find(a->command, arg + 2, n);
        p = o ? NULL : find_param(a->command, arg + 2, n);
        value = arg[2 + n] ? arg + 3 + n : NULL;
        if (!o && !p)
            return unknown(a->command, arg, n);
    } else {
        o = find_letter(a->command, arg[1]);
        value = arg[2] ? arg + 2 : NULL;
        if (!o)
            return cli_fail(0, "unknown option -%.1s; see sumi help %s", arg + 1, a->command->name);
    }
    if (o && (o->kind == CLI_SWITCH || o->kind == CLI_HELP))
        return value ? cli_fail(0, "--%s takes no value", o->name) : set_option(a, o, NULL);
    if (!value && ++*i >= argc)
        return cli_fail(0, "--%s needs a value; see sumi help %s", o ? o->name : p->flag, a->command->name);
    value = value ? value : argv[*i];
    if (o)
        return set_option(a, o, value);
    add_setting(a, p->flag, value);
    return true;
}

bool cli_parse(cli_args *a, const cli_command *c, int argc, char **argv)
{
    size_t room = (size_t)argc + 1;
    *a = (cli_args){.command = c, .v.score = {.cfg_scale = -1, .seed = 1}, .v.grid = {.margin = 4, .legend = 1}};
    a->set = calloc(2 * room, sizeof *a->set); /* --size makes two */
    a->word = calloc(room, sizeof *a->word);
    a->size = calloc(2 * room, sizeof *a->size);
    if (!a->set || !a->word || !a->size)
        return cli_fail(0, "out of memory");
    bool options = true;
    for (int i = 0; i < argc; i++)
        if (strlen(argv[i]) > SUMI_TEXT_MAX)
            return cli_fail(0, "an argument of %zu bytes ('%.24s...'); at most %d are taken", strlen(argv[i]), argv[i],
                            SUMI_TEXT_MAX);
    for (int i = 0; i < argc; i++) {
        if (options && !strcmp(argv[i], "--"))
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1]) {
            if (!read_option(a, argc, argv, &i))
                return false;
        } else
            a->word[a->nword++] = argv[i];
    }
    return true;
}

void cli_args_free(cli_args *a)
{
    free(a->set);
    free(a->word);
    free(a->size);
}
