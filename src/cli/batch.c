/* generate --prompts: many requests from a file, drawn one after the other. All lines are read before anything is drawn; a
 * picture's number counts through the whole file, so that its name does not depend on what is there already. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

typedef struct line {
    int number;          /* in the file, from 1 */
    int first;           /* of its pictures, from 0 */
    bool missing;        /* has pictures to draw */
    sumi_request request;
    char *texts, *more;  /* that the request borrows */
} line;

typedef struct batch {
    cli_progress progress;
    sumi_callbacks show;
    line *at;
    int n, pictures;
    double done, whole;  /* pictures, of those that are to be drawn */
    double seconds;      /* of the lines before */
    double now;          /* of this one */
    int part;            /* pictures of the line at work */
    char stage[32];
} batch;

static int bad_line(const char *file, int number, const char *why)
{
    return cli_fail(EXIT_USAGE, "%s:%d: %s", strcmp(file, "-") ? file : "standard input", number, why);
}

static int add_line(batch *b, cli_session *s, const char *file, int number, const char *text)
{
    line *more = realloc(b->at, ((size_t)b->n + 1) * sizeof *more);
    if (!more)
        return cli_fail(EXIT_BAD, "out of memory for the lines of %s", file);
    b->at = more;
    line *l = &b->at[b->n];
    *l = (line){.number = number, .first = b->pictures, .missing = true, .request = s->request};
    if (sumi_request_read(s->ctx, text, &l->request, &l->texts))
        return bad_line(file, number, sumi_error(s->ctx));
    b->n++;
    b->pictures += l->request.count;
    if (!l->request.prompt[strspn(l->request.prompt, " \t\r\n")])
        return bad_line(file, number, "there is no prompt");
    return 0;
}

static int read_lines(batch *b, cli_session *s, const char *file)
{
    FILE *f = strcmp(file, "-") ? fopen(file, "r") : stdin;
    char *text = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = f ? 0 : cli_fail(EXIT_BAD, "--prompts: %s: %s", file, strerror(errno));
    for (int number = 1; !rc && (n = getline(&text, &room, f)) >= 0; number++) {
        while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
            text[--n] = 0;
        const char *at = text + (number == 1 && !strncmp(text, "\xef\xbb\xbf", 3) ? 3 : 0); /* a byte order mark */
        if (strlen(text) != (size_t)n)
            rc = bad_line(file, number, "the line has NUL characters");
        else if (at[strspn(at, " \t")] && at[0] != '#')
            rc = add_line(b, s, file, number, at);
    }
    if (!rc && ferror(f))
        rc = cli_fail(EXIT_BAD, "--prompts: %s: cannot be read", file);
    if (!rc && !b->n)
        rc = cli_fail(EXIT_USAGE, "--prompts: %s holds no prompt", file);
    free(text);
    if (f && f != stdin)
        fclose(f);
    return rc;
}

/* Midjourney's suffixes in the lines' prompts; they may change how many pictures a line has. */
static int take_suffixes(batch *b, cli_session *s, const char *file)
{
    b->pictures = 0;
    for (int i = 0; i < b->n; i++) {
        line *l = &b->at[i];
        sumi_status st = cli_drawn(s, &l->request) ? SUMI_OK : sumi_request_midjourney(s->ctx, s->model, &l->request, &l->more);
        if (st)
            return st == SUMI_E_ARG ? bad_line(file, l->number, sumi_error(s->ctx)) : cli_failed(s->ctx, st);
        l->first = b->pictures;
        b->pictures += l->request.count;
    }
    return 0;
}

/* A file that each line would write over the last one's. */
static int check_files(const batch *b, const char *file)
{
    for (int i = 0; i < b->n; i++)
        for (int k = 0; k < i; k++) {
            const sumi_request *r = &b->at[i].request, *q = &b->at[k].request;
            bool latents = r->save_latents[0] && !strcmp(r->save_latents, q->save_latents);
            if (latents || (r->save_inverted[0] && !strcmp(r->save_inverted, q->save_inverted)))
                return bad_line(file, b->at[i].number, latents ? "--save-latents: an earlier line writes the same file"
                                                               : "--save-inverted: an earlier line writes the same file");
        }
    return 0;
}

/* Finds out which pictures are there; only names that are the same every time can be. */
static int find_missing(batch *b, const cli_args *a, const cli_output *o)
{
    char path[4096];
    if (!o->stem[0])
        return cli_fail(EXIT_USAGE, "--resume needs names that tell what was drawn: -o 'out/%%04d.png'");
    for (int i = 0; i < b->n; i++) {
        line *l = &b->at[i];
        if (o->seeded && l->request.seed < 0)
            return bad_line(a->v.prompts, l->number, "--resume with {seed} in -o needs a --seed");
        cli_output names = *o;
        names.same_seeds = l->request.variation_strength > 0;
        l->missing = false;
        for (int k = 0; k < l->request.count; k++) {
            if (!cli_output_path(&names, l->first + k, b->pictures, cli_seed(&l->request, k), l->request.prompt, path,
                                 sizeof path))
                return EXIT_USAGE;
            l->missing |= access(path, F_OK) != 0;
        }
    }
    return 0;
}

static void tell(void *user, const sumi_progress *p)
{
    batch *b = user;
    sumi_progress q = *p;
    double part = strcmp(p->stage, "sample") ? !strcmp(p->stage, "decode") : p->steps > 0 ? (double)p->step / (double)p->steps
                                                                                          : 0;
    double done = b->done + part * b->part;
    b->now = p->seconds;
    q.stage = b->stage;
    q.seconds = b->seconds + p->seconds;
    q.eta = done > 0 ? q.seconds * (b->whole - done) / done : -1;
    b->show.progress(b->show.user, &q);
}

static int save(cli_session *s, const batch *b, const line *l, const cli_args *a, const cli_output *o, const sumi_images *im)
{
    char path[4096];
    cli_output names = *o;
    names.same_seeds = l->request.variation_strength > 0;
    for (int k = 0; k < l->request.count; k++) {
        const sumi_image *at = sumi_images_at(im, (size_t)k);
        if (!cli_output_path(&names, l->first + k, b->pictures, at->seed, l->request.prompt, path, sizeof path))
            return EXIT_USAGE;
        if (a->v.resume && !access(path, F_OK))
            continue;
        sumi_status st = sumi_image_save(s->ctx, at, path);
        if (st)
            return cli_failed(s->ctx, st);
        printf("%s\n", path);
        fflush(stdout);
    }
    return 0;
}

static int draw_line(batch *b, cli_session *s, const cli_args *a, const cli_output *o, int i)
{
    const line *l = &b->at[i];
    sumi_images *im = NULL;
    sumi_callbacks cb = b->show;
    cb.progress = tell;
    cb.user = b;
    b->part = l->request.count;
    b->now = 0;
    snprintf(b->stage, sizeof b->stage, "line %d", l->number);
    sumi_status st = sumi_generate(s->ctx, s->model, &l->request, &cb, &im);
    cli_progress_end(&b->progress);
    int rc = !st ? save(s, b, l, a, o, im) : st == SUMI_E_ARG ? bad_line(a->v.prompts, l->number, sumi_error(s->ctx))
                                                              : cli_failed(s->ctx, st);
    b->done += b->part;
    b->seconds += b->now;
    sumi_images_free(im);
    return rc;
}

int cli_batch(cli_session *s, const cli_args *a, const cli_output *o)
{
    batch b = {0};
    b.show = cli_progress_start(&b.progress, a->v.quiet, 5);
    int rc = read_lines(&b, s, a->v.prompts), skipped = 0;
    rc = rc ? rc : cli_open_model(s, a);
    rc = rc ? rc : take_suffixes(&b, s, a->v.prompts);
    rc = rc ? rc : check_files(&b, a->v.prompts);
    if (!rc && a->v.resume)
        rc = find_missing(&b, a, o);
    for (int i = 0; i < b.n; i++) {
        b.whole += b.at[i].missing ? b.at[i].request.count : 0;
        skipped += !b.at[i].missing;
    }
    if (!rc && skipped && !a->v.quiet)
        fprintf(stderr, "%d of %d lines were drawn before\n", skipped, b.n);
    for (int i = 0; i < b.n && !rc; i++)
        rc = b.at[i].missing ? draw_line(&b, s, a, o, i) : 0;
    for (int i = 0; i < b.n; i++)
        sumi_text_free(b.at[i].texts), sumi_text_free(b.at[i].more);
    free(b.at);
    return rc;
}
