/* The command: what its files share. Each subcommand is one file that ends in a sumi_command; main.c lists them. A command's
 * options are rows of a table, which makes the parser, the suggestions, the help and the man page. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "sumi.h"

enum { EXIT_BAD = 1, EXIT_USAGE = 2 }; /* a failure; a wrong call. Stopped by a signal: 128 + its number */

/* What options set. One struct for all commands: a name means the same everywhere. */
typedef struct cli_values {
    sumi_context_options context;
    sumi_model_options load; /* path NULL: the built-in model */
    const char *output; /* -o: generate's pattern, train's folder */
    const char *in;     /* run's tensors */
    int repeat;         /* its evaluations, 0: one, untimed */
    bool profile;       /* and where their time went */
    bool quiet, json, resume, man, low_memory, exact;
    const char *stage;
    const char *preview; /* generate's pattern for previews, and steps from one to the next */
    const char *preview_method;
    int preview_every;
    const char *vocab;  /* tokenize */
    const char *family; /* schedule */
    int64_t max_steps;
    sumi_score_options score;
    sumi_pull_options pull;
    sumi_convert_options convert;
    bool check, list, insecure_http; /* pull's switches */
    const char *from;    /* a picture whose parameters are taken */
    const char *prompts; /* a file of requests */
    bool markdown;       /* schema */
    sumi_grid_options grid;
    bool no_legend;
    const char *cells;   /* grid's pattern for single pictures */
} cli_values;

typedef enum cli_kind { CLI_SWITCH, CLI_TEXT, CLI_INT, CLI_INT64, CLI_FLOAT, CLI_SIZE, CLI_HELP } cli_kind;

typedef struct cli_option {
    const char *name;   /* without the dashes */
    char letter;        /* of the short form, 0: none */
    cli_kind kind;
    const char *arg;    /* what help calls the value; NULL for switches */
    size_t at;          /* offset in cli_values; unused by CLI_SIZE and CLI_HELP */
    double low, high;
    const char *help;
} cli_option;

/* A flag of the request's table (sumi_params), applied once there is a context. */
typedef struct cli_setting { const char *name, *value; } cli_setting;

typedef struct cli_args {
    const struct cli_command *command;
    cli_values v;
    cli_setting *set;   /* nset of them, in the order given */
    int nset;
    const char **word;  /* what is no option, nword of them */
    int nword;
    char (*size)[16];   /* storage of --size's numbers */
    int nsize;
    bool help;
} cli_args;

typedef struct cli_command {
    const char *name, *summary;
    const char *usage;  /* after "sumi " */
    const char *about;  /* paragraphs, lines as they are printed */
    bool request;       /* takes the flags of sumi_params */
    const cli_option *options; /* ends with a row without name */
    const char *const *examples; /* pairs: command line, what it does; ends with NULL */
    int (*run)(cli_args *a);
} cli_command;

extern const cli_command cmd_generate, cmd_inspect, cmd_plan, cmd_train, cmd_score, cmd_tokenize, cmd_convert, cmd_pull,
                         cmd_models, cmd_version, cmd_help;
extern const cli_command cmd_run, cmd_info, cmd_grid, cmd_schema;
extern const cli_command cmd_schedule;
extern const cli_command cmd_prompt;
extern const cli_command *const cli_commands[]; /* ends with NULL */
const cli_command *cli_find(const char *name);  /* NULL: none */

#define CLI_AT(field) offsetof(cli_values, field)
#define CLI_OPT_HELP {"help", 'h', CLI_HELP, NULL, 0, 0, 0, "this text"}
#define CLI_OPT_JSON {"json", 0, CLI_SWITCH, NULL, CLI_AT(json), 0, 0, "as JSON"}
#define CLI_OPT_QUIET {"quiet", 'q', CLI_SWITCH, NULL, CLI_AT(quiet), 0, 0, "no progress, no remarks"}
#define CLI_OPT_MODEL {"model", 'm', CLI_TEXT, "FILE|DIR", CLI_AT(load.path), 0, 0, \
                       "checkpoint, or folder in diffusers' layout; the built-in model without it"}
#define CLI_OPT_PARTS \
    {"vae", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.vae), 0, 0, "autoencoder to use instead of the model's"}, \
    {"text-encoder", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.text_encoder), 0, 0, "text encoder to use instead of the model's"}, \
    {"text-encoder-2", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.text_encoder_2), 0, 0, "XL's second text encoder, OpenCLIP bigG"}, \
    {"unet", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.unet), 0, 0, "denoiser to use instead of the model's"}, \
    {"taesd", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.taesd), 0, 0, \
     "tiny autoencoder of the same latents (TAESD), for --preview-method and --vae-decoder taesd"}, \
    {"tokenizer", 0, CLI_TEXT, "DIR|FILE", CLI_AT(load.tokenizer), 0, 0, \
     "vocab.json and merges.txt, or OpenAI's bpe_simple_vocab_16e6.txt.gz"}, \
    {"low-memory", 0, CLI_SWITCH, NULL, CLI_AT(low_memory), 0, 0, \
     "least memory first: slower; above 384 pixels a side the picture is decoded in tiles, which changes it a little"}
#define CLI_OPT_CONTEXT \
    {"threads", 0, CLI_INT, "N", CLI_AT(context.threads), 1, 1024, \
     "threads; every processor without it; the picture does not depend on it"}, \
    {"cpu", 0, CLI_TEXT, "NAME", CLI_AT(context.cpu), 0, 0, "instruction set: scalar, avx2, avx512, neon; the best without it"}, \
    {"exact", 0, CLI_SWITCH, NULL, CLI_AT(exact), 0, 0, "convolutions as direct sums, not by minimal filtering: slower"}
#define CLI_OPT_SIZE \
    {"size", 0, CLI_SIZE, "WxH", 0, 0, 0, "width and height in pixels, such as 128x128"}, \
    {"seed-resize", 0, CLI_SIZE, "WxH", 0, 0, 0, "seed-resize-width and seed-resize-height"}

/* ---- args.c ---- */

/* Fills a from argv[0..argc); false after an error line was printed. cli_args_free in any case. */
bool cli_parse(cli_args *a, const cli_command *c, int argc, char **argv);
void cli_args_free(cli_args *a);
/* "sumi: ..." on stderr, one line whatever the text; returns `code`. */
int cli_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for a failure of the library: its message, and the exit status that goes with st. */
int cli_failed(sumi_context *ctx, sumi_status st);
/* Exactly n words wanted (what: "a file"); false after an error line. */
bool cli_words(const cli_args *a, int n, const char *what);
/* A row of the command's own table, by name; NULL: none. */
const cli_option *cli_option_find(const cli_command *c, const char *name, size_t n);
/* The name of the list nearest to word, or NULL when none is near. next(arg, i) gives the i-th name, NULL past the end. */
const char *cli_nearest(const char *word, size_t n, const char *(*next)(const void *arg, size_t i), const void *arg);

/* ---- session.c: context, request, model ---- */

typedef struct cli_session {
    sumi_context *ctx;
    sumi_model *model;
    sumi_request request;
    sumi_images *picture;   /* --from's; NULL: none */
    sumi_infotext *from;
    char *texts;            /* of the request, once suffixes were taken off the prompt */
} cli_session;

/* Makes the context and the request, from --from's picture and the flags; 0 or an exit status after an error line. cli_close in
 * any case. */
int cli_open(cli_session *s, const cli_args *a);
/* The one word of the command line becomes the prompt. needed: there must be one by now. 0 or an exit status. */
int cli_prompt(cli_session *s, const cli_args *a, bool needed);
/* The model; suffixes are taken off the prompt, unless it is --from's picture's, from which they are off already. */
int cli_open_model(cli_session *s, const cli_args *a);
/* The seed of r's picture k. */
int64_t cli_seed(const sumi_request *r, int k);
bool cli_drawn(const cli_session *s, const sumi_request *r); /* whether it is that */
void cli_close(cli_session *s);
/* "12.3 MB", "4.5 GFLOP" and so on, in a static buffer; two may be used in one call. */
const char *cli_amount(double x, double base, const char *unit);

#define CLI_OPT_FROM {"from", 0, CLI_TEXT, "PICTURE", CLI_AT(from), 0, 0, \
     "draw what this picture's parameters say (sumi's, A1111's and others'); other flags go before them"}

/* ---- batch.c ---- */

struct cli_output;
/* Draws the requests of --prompts, one after the other; an exit status. */
int cli_batch(cli_session *s, const cli_args *a, const struct cli_output *o);

/* ---- output.c: names of picture files ---- */

typedef struct cli_output {
    char folder[2048];  /* "" or ending in '/' */
    char stem[512];     /* pattern of the name without extension, "" for the default name */
    const char *ext;    /* ".png" */
    bool numbered;      /* the pattern has the picture's number */
    bool seeded;        /* and its seed */
    bool same_seeds;    /* which is the same for all: variations. Set by who knows the request */
} cli_output;

/* Takes the pattern apart (NULL: default names in the working folder) and checks that a picture can be written there;
 * 0 or an exit status after an error line. */
int cli_output_open(cli_output *o, const char *pattern);
/* The path of picture k of n; false (after an error line) when it is too long. Default names avoid existing files. */
bool cli_output_path(const cli_output *o, int k, int n, int64_t seed, const char *prompt, char *path, size_t size);

/* ---- progress.c ---- */

typedef struct cli_progress {
    bool quiet, terminal, drawn;
    double last;        /* seconds at which something was shown last */
    double every;       /* seconds between plain lines */
    char stage[32];
} cli_progress;

/* Callbacks that show p on stderr and stop on SIGINT and SIGTERM, which they catch from here on. */
sumi_callbacks cli_progress_start(cli_progress *p, bool quiet, double every);
/* Clears the bar's line. */
void cli_progress_end(cli_progress *p);
/* The signal that asked to stop, 0: none. */
int cli_stopped(void);

/* ---- preview.c: pictures on the way ---- */

typedef struct cli_preview {
    cli_progress progress; /* the first member: callbacks take a cli_preview for one */
    cli_output output;
    sumi_context *ctx;     /* of its own: the request's is at work */
    const char *prompt;
    int64_t seed;
    int count;
    bool failed;           /* said once */
} cli_preview;

/* Adds previews to what cli_progress_start gave for v->progress; 0 or an exit status after an error line. */
int cli_preview_start(cli_preview *v, const cli_args *a, const sumi_request *r, sumi_callbacks *cb);
void cli_preview_end(cli_preview *v);

/* ---- help.c ---- */

void cli_usage(FILE *f);                        /* all commands */
void cli_help(FILE *f, const cli_command *c);   /* one command */
void cli_man(FILE *f);                          /* the man page, roff */

#endif
