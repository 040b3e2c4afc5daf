/* sumi pull: fetches a model from a hub, or a file from any address, into the cache. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"

/* --list: each file is a message. */
static void print_message(void *user, const sumi_progress *p)
{
    if (p->message && !strcmp(p->stage, "list"))
        printf("%s\n", p->message);
}

static void report(const sumi_pulled *p, bool quiet)
{
    printf("%s\n", p->path);
    if (quiet)
        return;
    fprintf(stderr, "%d file%s, %s", p->files, p->files == 1 ? "" : "s", cli_amount((double)p->bytes, 1000, "B"));
    if (p->fetched < p->bytes)
        fprintf(stderr, ", %s of it fetched now", cli_amount((double)p->fetched, 1000, "B"));
    fprintf(stderr, p->sha256[0] ? ", sha256 %s\n" : "\n", p->sha256);
}

static int pull(cli_session *s, cli_args *a)
{
    cli_progress p;
    sumi_pulled *out = NULL;
    sumi_callbacks cb = cli_progress_start(&p, a->v.quiet, 5);
    sumi_pull_options o = a->v.pull;
    o.check = a->v.check;
    o.list = a->v.list;
    o.insecure_http = a->v.insecure_http;
    if (o.list)
        cb.progress = print_message;
    sumi_status st = sumi_pull(s->ctx, a->word[0], &o, &cb, &out);
    cli_progress_end(&p);
    if (st == SUMI_E_CANCELLED && cli_stopped())
        return cli_fail(128 + cli_stopped(), "stopped; the same command goes on from here");
    if (st)
        return cli_failed(s->ctx, st);
    if (!o.list)
        report(out, a->v.quiet);
    sumi_pulled_free(out);
    return 0;
}

static int run(cli_args *a)
{
    cli_session s;
    if (!cli_words(a, 1, "a model's name or an address"))
        return EXIT_USAGE;
    int rc = cli_open(&s, a);
    rc = rc ? rc : pull(&s, a);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    {"variant", 0, CLI_TEXT, "NAME", CLI_AT(pull.variant), 0, 0, "weights of this variant where there are any, such as fp16"},
    {"include", 0, CLI_TEXT, "GLOBS", CLI_AT(pull.include), 0, 0,
     "take the files that match one of these patterns (between commas), instead of what sumi needs"},
    {"exclude", 0, CLI_TEXT, "GLOBS", CLI_AT(pull.exclude), 0, 0, "leave out the files that match one of these"},
    {"list", 0, CLI_SWITCH, NULL, CLI_AT(list), 0, 0, "print sizes and names of what would be taken, and fetch nothing"},
    {"check", 0, CLI_SWITCH, NULL, CLI_AT(check), 0, 0, "compare files that are there already with their digests"},
    {"sha256", 0, CLI_TEXT, "HEX", CLI_AT(pull.sha256), 0, 0, "digest that the file at an address must have"},
    {"tries", 0, CLI_INT, "N", CLI_AT(pull.tries), 1, 1000, "give up after N tries that brought nothing; 6 without it"},
    {"insecure-http", 0, CLI_SWITCH, NULL, CLI_AT(insecure_http), 0, 0,
     "allow http:// to other machines; the token never goes that way"},
    CLI_OPT_QUIET,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi pull stable-diffusion-v1-5/stable-diffusion-v1-5 --variant fp16",
        "what sumi needs of a diffusers folder, half precision",
    "sumi pull owner/name@v2 --list", "what would be taken of a branch, tag or commit",
    "sumi pull owner/name/model.safetensors", "one file of a model",
    "sumi pull owner/name --include 'vae/*' --exclude '*.bin'", "files by pattern",
    "sumi pull https://example.org/model.safetensors --sha256 HEX", "any address",
    "sumi \"a red apple\" --model owner/name", "draws with what was pulled",
    NULL,
};

const cli_command cmd_pull = {
    .name = "pull",
    .summary = "fetch a model from a hub, or a file by its address",
    .usage = "pull [options] OWNER/NAME[@REVISION][/FILE] | URL",
    .about = "Fetches into the cache and prints where the model lies; --model takes the name as well. Of a folder in\n"
             "diffusers' layout it takes the components' configurations and one set of weights each, safetensors before\n"
             ".bin; without model_index.json the checkpoint, if there is but one. A pull that was stopped goes on where\n"
             "it ended. Files are compared with the digests that the hub gives (sha256; git's for small files) before\n"
             "they get their names, and two pulls at once wait for each other. The token in HF_TOKEN goes to the hub\n"
             "alone, whatever it redirects to. Certificates are always checked; plain http works to this machine only,\n"
             "or with --insecure-http. Models that huggingface_hub has in its own cache need not be pulled again.",
    .options = options,
    .examples = examples,
    .run = run,
};
