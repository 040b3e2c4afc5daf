/* Names of the pictures that are written: `-o` patterns, default names made of prompt and seed, and the check before
 * drawing that a picture can be written there at all.
 *
 * In a pattern %d (or %03d) and {n} are the picture's number from 1, {seed} its seed, {prompt} the prompt in file-name
 * letters, %% a percent sign. A pattern that does not tell several pictures apart gets their number before the extension. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

enum { PROMPT_BYTES = 48 };

static const char *const extensions[] = {".png", ".jpg", ".jpeg", ".webp", NULL};

/* Moves a known extension from the stem to o->ext. False: the stem has one that is not known. */
static bool take_extension(cli_output *o)
{
    char *dot = strrchr(o->stem, '.');
    o->ext = ".png";
    if (!dot || dot == o->stem)
        return true;
    for (int i = 0; extensions[i]; i++)
        if (!strcasecmp(dot, extensions[i])) {
            o->ext = extensions[i];
            *dot = 0;
            return true;
        }
    return false;
}

/* Length of a %d, %03d or %% at s, 0 for anything else. */
static size_t percent(const char *s, int *width)
{
    size_t n = 1;
    *width = 0;
    if (s[n] == '%')
        return 2;
    if (s[n] == '0' && s[n + 1] >= '1' && s[n + 1] <= '9')
        *width = s[n + 1] - '0', n += 2;
    return s[n] == 'd' ? n + 1 : 0;
}

static int check_stem(cli_output *o, const char *pattern)
{
    int width;
    for (const char *s = o->stem; *s; s++) {
        size_t n = *s == '%' ? percent(s, &width) : 1;
        if (!n)
            return cli_fail(EXIT_USAGE, "-o: '%.80s': write %%d for the picture's number, %%%% for a percent sign", pattern);
        if (*s == '%')
            o->numbered |= s[n - 1] == 'd', s += n - 1;
        o->numbered |= !strncmp(s, "{n}", 3);
        o->seeded |= !strncmp(s, "{seed}", 6);
    }
    return 0;
}

static int check_folder(const cli_output *o)
{
    const char *folder = o->folder[0] ? o->folder : ".";
    struct stat st;
    if (stat(folder, &st))
        return cli_fail(EXIT_BAD, "-o: the folder %s: %s", folder, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return cli_fail(EXIT_BAD, "-o: %s is not a folder", folder);
    char probe[sizeof o->folder + 16]; /* the only sure way to know is to try */
    snprintf(probe, sizeof probe, "%s.sumi-XXXXXX", o->folder);
    int fd = mkstemp(probe);
    if (fd < 0)
        return cli_fail(EXIT_BAD, "-o: the folder %s cannot be written to: %s", folder, strerror(errno));
    close(fd);
    unlink(probe);
    return 0;
}

int cli_output_open(cli_output *o, const char *pattern)
{
    *o = (cli_output){.ext = ".png"};
    if (!pattern)
        return check_folder(o);
    const char *slash = strrchr(pattern, '/'), *base = slash ? slash + 1 : pattern;
    struct stat st;
    bool folder = !*base || (!stat(pattern, &st) && S_ISDIR(st.st_mode));
    size_t n = folder ? strlen(pattern) : (size_t)(base - pattern);
    if (!pattern[0])
        return cli_fail(EXIT_USAGE, "-o: the name is empty");
    if (n > sizeof o->folder - 2 || (!folder && strlen(base) > 200))
        return cli_fail(EXIT_USAGE, "-o: the name is too long");
    memcpy(o->folder, pattern, n);
    if (folder && pattern[n - 1] != '/')
        o->folder[n] = '/';
    if (!folder)
        memcpy(o->stem, base, strlen(base));
    if (!take_extension(o))
        return cli_fail(EXIT_USAGE, "-o: '%.80s': unknown kind of picture; the name may end in .png, .jpg or .webp", pattern);
    int rc = check_stem(o, pattern);
    return rc ? rc : check_folder(o);
}

/* Small letters and digits of the prompt, the rest as single dashes; bytes of other scripts stay, cut between characters. */
static void slug(const char *prompt, char *out)
{
    size_t n = 0;
    for (; *prompt && n < PROMPT_BYTES; prompt++) {
        unsigned char c = (unsigned char)*prompt;
        c = c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80)
            out[n++] = (char)c;
        else if (n && out[n - 1] != '-')
            out[n++] = '-';
    }
    if (((unsigned char)*prompt & 0xc0) == 0x80) { /* inside a character: drop its beginning */
        while (n && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
            n--;
        n -= n && (unsigned char)out[n - 1] >= 0xc0;
    }
    while (n && out[n - 1] == '-')
        n--;
    out[n] = 0;
    if (!n)
        strcpy(out, "picture");
}

typedef struct text { char *at; size_t n, size; } text;

static void add(text *t, const char *s)
{
    size_t n = strlen(s);
    if (t->n + n < t->size)
        memcpy(t->at + t->n, s, n + 1);
    t->n += n;
}

static void add_number(text *t, int width, long long x)
{
    char s[32];
    snprintf(s, sizeof s, "%0*lld", width, x);
    add(t, s);
}

static void expand(text *t, const char *s, int number, int64_t seed, const char *prompt)
{
    int width;
    while (*s) {
        size_t n = *s == '%' ? percent(s, &width) : 1;
        if (*s == '%' && s[n - 1] == 'd')
            add_number(t, width, number);
        else if (!strncmp(s, "{n}", 3))
            add_number(t, 0, number), n = 3;
        else if (!strncmp(s, "{seed}", 6))
            add_number(t, 0, seed), n = 6;
        else if (!strncmp(s, "{prompt}", 8))
            add(t, prompt), n = 8;
        else
            add(t, (char[]){*s, 0});
        s += n;
    }
}

bool cli_output_path(const cli_output *o, int k, int n, int64_t seed, const char *prompt, char *path, size_t size)
{
    char words[PROMPT_BYTES + 8];
    slug(prompt, words);
    for (int again = 1;; again++) {
        text t = {path, 0, size};
        path[0] = 0;
        add(&t, o->folder);
        expand(&t, o->stem[0] ? o->stem : "{prompt}-{seed}", k + 1, seed, words);
        if (o->stem[0] && n > 1 && !o->numbered && (!o->seeded || o->same_seeds))
            add(&t, "-"), add_number(&t, 0, k + 1);
        if (again > 1)
            add(&t, "-"), add_number(&t, 0, again);
        add(&t, o->ext);
        if (t.n >= size)
            return cli_fail(0, "-o: the name is too long");
        if (o->stem[0] || access(path, F_OK))
            return true;
    }
}
