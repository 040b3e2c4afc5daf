/* sumi tokenize: the tokens a text encoder gets for a text. */
#include <stddef.h>

#include "cli/cli.h"

static void print_json(const sumi_tokens *t)
{
    printf("{\"ids\": [");
    for (size_t i = 0; i < t->count; i++)
        printf("%s%d", i ? ", " : "", (int)t->id[i]);
    printf("], \"tokens\": [");
    for (size_t i = 0; i < t->count; i++) {
        printf("%s\"", i ? ", " : "");
        for (const char *s = t->text[i]; *s; s++) {
            if ((unsigned char)*s < 32)
                printf("\\u%04x", (unsigned char)*s);
            else
                printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
        }
        putchar('"');
    }
    printf("]}\n");
}

static int run(cli_args *a)
{
    cli_session s;
    sumi_tokens *t = NULL;
    if (!cli_words(a, 1, "a text in quotes"))
        return EXIT_USAGE;
    if (a->v.vocab && a->v.load.path)
        return cli_fail(EXIT_USAGE, "tokenize takes --model or --vocab, not both");
    int rc = cli_open(&s, a);
    if (!rc && !a->v.vocab)
        rc = cli_open_model(&s, a);
    if (!rc) {
        sumi_status st = sumi_tokenize(s.ctx, s.model, a->v.vocab, a->word[0], &t);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc && a->v.json)
        print_json(t);
    for (size_t i = 0; !rc && !a->v.json && i < t->count; i++)
        printf("%6d  %s\n", (int)t->id[i], t->text[i]);
    sumi_tokens_free(t);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    CLI_OPT_MODEL,
    {"vocab", 0, CLI_TEXT, "clip|FILE|DIR", CLI_AT(vocab), 0, 0,
     "no model: clip (built in), OpenAI's file, or a folder with vocab.json, merges.txt"},
    CLI_OPT_JSON, CLI_OPT_HELP, {0},
};

static const char *const examples[] = {
    "sumi tokenize \"a red apple\" --vocab clip", "CLIP's tokens, as SD 1.x, 2.x and XL get them: 49406 320 736 3055 49407",
    "sumi tokenize \"a red apple\" --json --vocab tokenizer",
    "for programs, with the tokenizer folder of a model in diffusers' layout", NULL,
};

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .summary = "print the tokens a text encoder gets for a text",
    .usage = "tokenize \"TEXT\" [--model FILE|DIR | --vocab clip|FILE|DIR] [--json]",
    .about = "Prints an id and a token a line, with the marks of start and end, without padding and uncut. Tokens are in the\n"
             "vocabulary's spelling: </w> ends a word, bytes outside ASCII are letters that stand for them.\n"
             "Texts are cleaned as OpenAI's CLIP does: wrong decodings and character references undone, quotes\n"
             "straight, lower case.",
    .options = options,
    .examples = examples,
    .run = run,
};
