/* sumi: a diffusion engine. This is the library's only public header.
 *
 * Conventions. Every fallible call takes a context and returns a sumi_status (0 is success); sumi_error(ctx) then holds
 * one line that names the file, tensor or parameter and what to do. Handles are opaque; what sumi_x_new or sumi_x_load
 * makes, sumi_x_free releases (NULL is allowed). The library never prints, exits or aborts, and keeps no global state.
 * A context is used by one thread at a time; several contexts may work at once, with one model too. What was made with a
 * context is released before the context is. Texts are UTF-8, NUL-terminated.
 *
 * The shortest program:
 *     sumi_context *ctx;  sumi_model *model;  sumi_images *out;
 *     sumi_context_new(NULL, &ctx);
 *     sumi_model_load(ctx, NULL, &model);                      // NULL: the built-in model
 *     sumi_request r = sumi_request_default();
 *     r.prompt = "a red apple";
 *     if (sumi_generate(ctx, model, &r, NULL, &out) == SUMI_OK)
 *         sumi_image_save(ctx, sumi_images_at(out, 0), "apple.png");
 */
#ifndef SUMI_H
#define SUMI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SUMI_VERSION "0.1.0"
#if defined(__GNUC__)
#define SUMI_API __attribute__((visibility("default")))
#else
#define SUMI_API
#endif

typedef enum sumi_status {
    SUMI_OK = 0,
    SUMI_E_ARG,       /* a caller's argument or a request's parameter is wrong */
    SUMI_E_FILE,      /* a file cannot be opened, read or written */
    SUMI_E_FORMAT,    /* a file's content is not what its format says */
    SUMI_E_MODEL,     /* a model lacks a tensor or has one of another shape */
    SUMI_E_MEMORY,    /* an allocation failed */
    SUMI_E_SUPPORT,   /* known, but not supported by this build or backend */
    SUMI_E_NUMERIC,   /* NaN or infinity where a number was needed */
    SUMI_E_CANCELLED, /* the caller asked to stop */
    SUMI_E_INTERNAL,  /* a bug in sumi */
    SUMI_E_NETWORK    /* a server cannot be reached, refuses, or sends what it should not */
} sumi_status;

/* ---- context ----------------------------------------------------------------------------------------------------- */

typedef struct sumi_context sumi_context;

typedef struct sumi_context_options {
    int threads;     /* 0: every processor this process may use. The results do not depend on it. */
    const char *cpu; /* NULL or "auto": the best instruction set; else "scalar", "avx2", "avx512", "neon" */
} sumi_context_options;

/* o may be NULL. On failure *out is a context that holds the error only, or NULL when memory is out. */
SUMI_API sumi_status sumi_context_new(const sumi_context_options *o, sumi_context **out);
SUMI_API void sumi_context_free(sumi_context *ctx);
/* The last failure's message, "" if there was none; good until the next call with ctx. */
SUMI_API const char *sumi_error(const sumi_context *ctx);
SUMI_API const char *sumi_version(void);
/* Instruction set in use, and threads. */
SUMI_API const char *sumi_context_cpu(const sumi_context *ctx);
SUMI_API int sumi_context_threads(const sumi_context *ctx);
/* Largest number of bytes held at once since the context was made (allocations of sumi itself). */
SUMI_API size_t sumi_memory_peak(const sumi_context *ctx);
SUMI_API void sumi_text_free(char *text); /* releases texts that calls below hand out */

/* ---- models ------------------------------------------------------------------------------------------------------ */

typedef struct sumi_model sumi_model;

/* What to load. Zero-initialise: every member may be NULL or 0. */
typedef struct sumi_model_options {
    const char *path;            /* as in sumi_model_load */
    const char *vae;             /* files (of any format and layout) or component folders that replace the model's own parts */
    const char *text_encoder;
    const char *text_encoder_2;  /* the second of XL: OpenCLIP bigG */
    const char *unet;            /* the denoiser, UNet or transformer */
    const char *tokenizer;       /* folder with vocab.json and merges.txt, or a file as OpenAI publishes CLIP's */
    int low_memory;              /* 1: least memory first: one prediction at a time, weights dropped after use; slower, and above 384
                                    pixels a side decoded in tiles, which moves colours slightly */
} sumi_model_options;

/* path: a checkpoint of any layout and format that sumi reads (.safetensors, .ckpt, .gguf), a folder in diffusers' layout
 * (model_index.json), or NULL for the built-in model, which is looked for at $SUMI_MODEL, beside the program (../models) and
 * in the installed share folder. */
SUMI_API sumi_status sumi_model_load(sumi_context *ctx, const char *path, sumi_model **out);
SUMI_API sumi_status sumi_model_load_with(sumi_context *ctx, const sumi_model_options *o, sumi_model **out);
SUMI_API void sumi_model_free(sumi_model *model);
/* A line about the family, for logs: "rectified-flow UNet, 11.2 M parameters, 128x128". */
SUMI_API const char *sumi_model_summary(const sumi_model *model);
/* Family, components, parameters, types, missing and unexpected tensors of a file or folder, as text for people
 * (json = 0) or JSON. Works for any safetensors file and any PyTorch checkpoint (.ckpt .pt .pth .bin), also one that is no
 * model; nothing in a checkpoint is run. */
SUMI_API sumi_status sumi_inspect(sumi_context *ctx, const char *path, int json, char **out);

/* Tokens of a text as text encoders get them: start, the text's, end; not padded, not cut. */
typedef struct sumi_tokens {
    size_t count;
    const int32_t *id;
    const char *const *text; /* spelled as in the vocabulary: "cat</w>" */
} sumi_tokens;

/* By the model's tokenizer, or, when vocab is not NULL, by CLIP's built-in vocabulary ("clip"), that of a file as
 * OpenAI publishes it (bpe_simple_vocab_16e6.txt.gz) or of a folder with vocab.json and merges.txt; model may be NULL then. */
SUMI_API sumi_status sumi_tokenize(sumi_context *ctx, const sumi_model *model, const char *vocab, const char *text, sumi_tokens **out);
SUMI_API void sumi_tokens_free(sumi_tokens *t);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* The table of generation parameters: X(type, field, default, low, high, flag, A1111's name, help).
 * It makes the struct below, the command's flags, validation, infotext and the reference page. */
#define SUMI_PARAMS(X)                                                                                                     \
    X(TEXT, prompt, "", 0, 0, "prompt", "Prompt", "what to draw")                                                          \
    X(TEXT, negative_prompt, "", 0, 0, "negative", "Negative prompt", "what to steer away from")                           \
    X(INT64, seed, -1, -1, 9007199254740991, "seed", "Seed", "noise of the first picture, the next ones count up; -1: random") \
    X(INT, steps, 0, 0, 1000, "steps", "Steps", "sampling steps; 0: the model's default")                                  \
    X(FLOAT, cfg_scale, -1, -1, 100, "cfg", "CFG scale", "classifier-free guidance scale, 1 is none; -1: the model's default") \
    X(INT, width, 0, 0, 8192, "width", "Width", "pixels; 0: the model's default")                                          \
    X(INT, height, 0, 0, 8192, "height", "Height", "pixels; 0: the model's default")                                       \
    X(INT, count, 1, 1, 1024, "count", "Batch size", "pictures, each with a seed of its own")                              \
    X(TEXT, sampler, "", 0, 0, "sampler", "Sampler", "euler, euler_a, heun, ddim, dpmpp_2m; empty: the model's default")   \
    X(TEXT, schedule, "", 0, 0, "schedule", "Schedule type", "normal, karras, beta, align_your_steps and others, see Schedules; empty: the model's default") \
    X(TEXT, rng, "sumi", 0, 0, "rng", "RNG", "where noise comes from: sumi, torch (its CPU generator), philox (CUDA's); seeds of other programs need theirs") \
    X(INT, clip_skip, 0, 0, 64, "clip-skip", "Clip skip", "take the text from this layer, counted from the last, which is 1; 0: the model's default") \
    X(TEXT, prediction, "", 0, 0, "prediction", "Prediction type", "epsilon, v_prediction, sample, flow_prediction, edm; empty: what the model says") \
    X(INT, original_width, 0, 0, 16384, "original-width", "Original width", "XL: size of the picture that it should look taken from; 0: the picture's") \
    X(INT, original_height, 0, 0, 16384, "original-height", "Original height", "XL: see original-width")                  \
    X(INT, crop_left, 0, 0, 16384, "crop-left", "Crop left", "XL: where in that picture it should look cropped from")      \
    X(INT, crop_top, 0, 0, 16384, "crop-top", "Crop top", "XL: see crop-left")                                            \
    X(INT, target_width, 0, 0, 16384, "target-width", "Target width", "XL: size that it was wanted at; 0: the picture's")  \
    X(INT, target_height, 0, 0, 16384, "target-height", "Target height", "XL: see target-width")                          \
    X(FLOAT, aesthetic_score, 6, 0, 100, "aesthetic-score", "Aesthetic score", "XL refiner: rating of the prompt's picture") \
    X(FLOAT, negative_aesthetic_score, 2.5, 0, 100, "negative-aesthetic-score", "Negative aesthetic score", "XL refiner: rating of the negative prompt's") \
    X(FLOAT, sigma_min, 0, 0, 100000, "sigma-min", "Schedule min sigma", "lowest noise level before 0, where the schedule has a range; 0: the model's") \
    X(FLOAT, sigma_max, 0, 0, 100000, "sigma-max", "Schedule max sigma", "highest noise level; 0: the model's")                \
    X(FLOAT, rho, 0, 0, 100, "rho", "Schedule rho", "exponent of the schedules karras (7) and polyexponential (1); 0: theirs") \
    X(TEXT, sigmas, "", 0, 0, "sigmas", "Sigmas", "falling noise levels instead of a schedule: 14.6,7.8,3,1,0, or a file of them; --steps follows") \
    X(INT, discard_next_to_last_sigma, -1, -1, 1, "discard-next-to-last-sigma", "Discard penultimate sigma", "1: one more step is made and the lowest level but 0 left out; -1: as the sampler's reference does") \
    X(FLOAT, shift, 0, 0, 1000, "shift", "Shift", "flow models: how far levels move up; 0: the model's")                       \
    X(INT, zero_snr, -1, -1, 1, "zero-snr", "Noise Schedule", "1: betas are rescaled so that the last level is noise alone; 0: they are not; -1: as the model says") \
    X(TEXT, beta_schedule, "", 0, 0, "beta-schedule", "Beta schedule", "noise levels the model was trained with: linear, scaled_linear, squaredcos_cap_v2, sqrt, sigmoid, laplace, exp; empty: what it says") \
    X(FLOAT, eta, -1, -1, 100, "eta", "Eta", "how much of a step's noise is drawn anew; -1: the sampler's default")           \
    X(FLOAT, s_noise, 1, 0, 100, "s-noise", "Sigma noise", "factor of the noise that is drawn anew")                          \
    X(FLOAT, s_churn, 0, 0, 1000, "s-churn", "Sigma churn", "noise added before each step, in all (Karras et al. 2022); for euler, heun, dpm2") \
    X(FLOAT, s_tmin, 0, 0, 100000, "s-tmin", "Sigma tmin", "lowest noise level that churn acts at")                           \
    X(FLOAT, s_tmax, 0, 0, 100000, "s-tmax", "Sigma tmax", "highest one; 0: any")                                             \
    X(INT, vae_tile, -1, -1, 8192, "vae-tile", "VAE tile", "decode in tiles of so many pixels a side; 0: never, -1: above 1024x1024 in area, with --low-memory above 384 a side") \
    X(TEXT, init_latents, "", 0, 0, "init-latents", "Initial latents", "safetensors file whose tensor latents [N,C,h,w] is the start noise (unit normals)") \
    X(TEXT, save_latents, "", 0, 0, "save-latents", "Save latents", "safetensors file for the result before decoding, latents [N,C,h,w]") \
    X(INT, save_steps, 0, 0, 1, "save-steps", "Save steps", "1: save-latents holds every step too, as latents.STEP")

#define SUMI_TEXT_MAX 65536 /* bytes of a text parameter: far more than any text tower reads */
#define SUMI_FIELD_TEXT const char *
#define SUMI_FIELD_INT int
#define SUMI_FIELD_INT64 int64_t
#define SUMI_FIELD_FLOAT float
#define SUMI_FIELD(TYPE, NAME, ...) SUMI_FIELD_##TYPE NAME;

/* Texts are borrowed for the length of the call. */
typedef struct sumi_request { SUMI_PARAMS(SUMI_FIELD) } sumi_request;

typedef enum sumi_param_type { SUMI_PARAM_TEXT, SUMI_PARAM_INT, SUMI_PARAM_INT64, SUMI_PARAM_FLOAT } sumi_param_type;
typedef struct sumi_param_info {
    sumi_param_type type;
    const char *name, *flag, *a1111, *help;
    double low, high;
    size_t offset; /* in sumi_request */
} sumi_param_info;

SUMI_API sumi_request sumi_request_default(void);
/* The table, *n rows. */
SUMI_API const sumi_param_info *sumi_params(size_t *n);
/* Sets a parameter from text ("steps", "20"), checking type and range. name may be the field's name or the flag. */
SUMI_API sumi_status sumi_request_set(sumi_context *ctx, sumi_request *r, const char *name, const char *value);

/* Names of samplers or schedules, NULL past the end; *advice (may be NULL) gets a line about it. */
SUMI_API const char *sumi_sampler_name(size_t i, const char **advice);
SUMI_API const char *sumi_schedule_name(size_t i, const char **advice);

/* A noise level that sampling visits. */
typedef struct sumi_level {
    double sigma;    /* noise in x = x0 + sigma n, of flow models in x = (1 - sigma) x0 + sigma n */
    double timestep; /* what the model sees for it; -1 for sigma 0, which it never sees */
    double alpha;    /* the picture's factor in the model's own input: 1 / sqrt(1 + sigma^2), flow: 1 - sigma */
    double log_snr;  /* log of the picture's variance over the noise's; infinite at sigma 0, of flow models at 1 */
} sumi_level;

typedef struct sumi_levels {
    const char *model, *kind;       /* name; "vp" (trained on betas), "edm", "flow" */
    double sigma_min, sigma_max;    /* the model's lowest and highest level */
    const char *schedule, *source;  /* "list" for r's sigmas; whose rule it is */
    size_t count;                   /* levels: one more than steps */
    const sumi_level *at;           /* falling, the last one's sigma 0 unless a list says otherwise */
} sumi_levels;

/* The noise levels that drawing r visits: its steps, schedule, sampler, sigma_min, sigma_max, rho, sigmas, shift, zero_snr,
 * beta_schedule and discard_next_to_last_sigma; the rest does not matter, the prompt may be empty. Either of a model or, model NULL, of
 * a family: "sd15", "sdxl", "vp:BETA[:START:END]" (BETA as in beta_schedule), "edm[:MIN:MAX]", "flow[:SHIFT]", whose defaults
 * are 20 steps of euler on normal. Released with sumi_levels_free. */
SUMI_API sumi_status sumi_schedule_levels(sumi_context *ctx, const sumi_model *model, const char *family, const sumi_request *r, sumi_levels **out);
SUMI_API void sumi_levels_free(sumi_levels *l);

/* ---- generating -------------------------------------------------------------------------------------------------- */

typedef struct sumi_progress {
    const char *stage;     /* "encode", "sample", "decode", "train", "pull" ... */
    int64_t step, steps;   /* done and in all, of this stage; steps 0: not known yet */
    double seconds;        /* since the call began */
    double eta;            /* seconds left of the whole call; < 0: not known yet */
    double loss, lr, rate; /* training: loss, learning rate, pictures per second */
    const char *message;   /* a line worth telling, or NULL */
    const char *unit;      /* NULL: steps are steps; "B": step and steps are bytes, rate is bytes per second */
} sumi_progress;

typedef struct sumi_callbacks {
    void (*progress)(void *user, const sumi_progress *p); /* may be NULL */
    /* The step's current estimate of picture `index`, RGB, 8 bit, at the latent's size (a latent's block of pixels averaged); good
     * during the call. Costs a decoding each; the result is not touched. May be NULL. */
    void (*preview)(void *user, int index, int step, int width, int height, const uint8_t *rgb);
    int preview_every; /* steps from one preview to the next; 0 and 1: every step */
    const int *cancel; /* polled; nonzero stops with SUMI_E_CANCELLED. May be NULL. */
    void *user;
} sumi_callbacks;

typedef struct sumi_image {
    int width, height, channels; /* 3: RGB, 4: RGBA with straight alpha */
    uint8_t *pixels;             /* rows from the top, dense */
    int64_t seed;
    char *infotext;              /* A1111's text of parameters, "" for loaded pictures without */
} sumi_image;

typedef struct sumi_images sumi_images;

/* Draws r->count pictures. *out is NULL on failure. The same request gives the same bits for any number of threads and
 * any count (picture k of a batch equals a single picture with seed + k). cb may be NULL. */
SUMI_API sumi_status sumi_generate(sumi_context *ctx, sumi_model *model, const sumi_request *r, const sumi_callbacks *cb, sumi_images **out);
SUMI_API size_t sumi_images_count(const sumi_images *im);
SUMI_API const sumi_image *sumi_images_at(const sumi_images *im, size_t i);
SUMI_API void sumi_images_free(sumi_images *im);

/* PNG, JPEG or WebP by the extension; infotext goes into the file's metadata. Written whole or not at all. */
SUMI_API sumi_status sumi_image_save(sumi_context *ctx, const sumi_image *im, const char *path);
SUMI_API sumi_status sumi_image_load(sumi_context *ctx, const char *path, sumi_images **out);

typedef struct sumi_plan_info {
    size_t weight_bytes;     /* model file, mapped */
    size_t packed_bytes;     /* prepared weights, all components together */
    size_t activation_bytes; /* largest component */
    size_t peak_bytes;       /* largest sum during the request */
    double encode_flops, step_flops, decode_flops, total_flops; /* step: one sampling step of the whole batch, guidance included */
    int steps;
} sumi_plan_info;

/* What the request would take, without running it. */
SUMI_API sumi_status sumi_plan_request(sumi_context *ctx, sumi_model *model, const sumi_request *r, sumi_plan_info *out);

/* ---- models of a hub ---------------------------------------------------------------------------------------------- */

/* Texts may be NULL. */
typedef struct sumi_pull_options {
    const char *cache;       /* folder; NULL: $SUMI_CACHE, $XDG_CACHE_HOME/sumi, ~/.cache/sumi */
    const char *endpoint;    /* the hub's address; NULL: $HF_ENDPOINT, https://huggingface.co */
    const char *token;       /* goes to the hub alone, never over plain http to another machine; NULL: $HF_TOKEN; "": none */
    const char *variant;     /* weights to prefer where a model has several: "fp16" */
    const char *include;     /* patterns between commas (fnmatch; * matches slashes too): these files instead of what sumi needs */
    const char *exclude;     /* not these */
    const char *sha256;      /* of a file that is fetched by address: 64 hexadecimal digits */
    int insecure_http;       /* plain http to other machines than this one is allowed */
    int tries;               /* of a request without progress in between; 0: 6 */
    int check;               /* compare files that are there already with their digests, too */
    int list;                /* fetch nothing; each file that would be taken comes as a message of progress */
} sumi_pull_options;

typedef struct sumi_pulled {
    const char *path;        /* for sumi_model_load: the folder, or the file where it is but one */
    const char *commit;      /* "" for an address */
    const char *sha256;      /* of a file fetched by address, else "" */
    uint64_t bytes, fetched; /* of all files; of those that came over the network in this call */
    int files;
} sumi_pulled;

/* Fetches OWNER/NAME, OWNER/NAME@REVISION, OWNER/NAME[@REVISION]/FILE from the hub, or the file at an http(s) address, into the
 * cache. Of a folder in diffusers' layout it takes what sumi needs, else the only checkpoint. A call that fails or is cancelled
 * leaves what it fetched, and the next goes on from there; files get their names once their digest was compared (sha256, git's for
 * small ones). Two calls at once for one model wait for each other. SUMI_E_NETWORK: the server's side. o, cb and out may be NULL; *out
 * is released with sumi_pulled_free. */
SUMI_API sumi_status sumi_pull(sumi_context *ctx, const char *what, const sumi_pull_options *o, const sumi_callbacks *cb, sumi_pulled **out);
SUMI_API void sumi_pulled_free(sumi_pulled *p);

typedef struct sumi_model_entry {
    const char *name;        /* for --model, sumi_models_find and sumi_models_remove: OWNER/NAME[@REVISION], an address; "built-in" */
    const char *path;
    const char *family;      /* what it is, as far as a look tells: "StableDiffusionPipeline", "safetensors, 1131 tensors" */
    uint64_t bytes;
    int files;
    int finished;            /* 0: a pull of it was not finished */
    int shared;              /* 1: in the cache of huggingface_hub, which is only read */
} sumi_model_entry;

typedef struct sumi_models sumi_models;

/* Every model in the cache (cache: NULL as above) and the built-in one, by name. */
SUMI_API sumi_status sumi_models_list(sumi_context *ctx, const char *cache, sumi_models **out);
SUMI_API size_t sumi_models_count(const sumi_models *m);
SUMI_API const sumi_model_entry *sumi_models_at(const sumi_models *m, size_t i);
SUMI_API void sumi_models_free(sumi_models *m);
/* Where a pulled model lies; *path is released with sumi_text_free. */
SUMI_API sumi_status sumi_models_find(sumi_context *ctx, const char *cache, const char *name, char **path);
/* Removes a model, one revision of it or a file fetched by address; *freed (may be NULL) gets the bytes. */
SUMI_API sumi_status sumi_models_remove(sumi_context *ctx, const char *cache, const char *name, uint64_t *freed);

/* ---- one part of a model ----------------------------------------------------------------------------------------- */

/* Runs text_encoder, text_encoder_2, unet, transformer, vae_encoder or vae_decoder once on the tensors of the file `in` and writes
 * what it gives, in f32, to the safetensors file `out`, whole or not at all. Names and shapes are those of diffusers and transformers,
 * pictures and latents [N,C,H,W]; every tensor of the file must be an input. Batches may have any size.
 *   unet            sample, timestep ([N], [1] or []), encoder_hidden_states; XL: added_cond_kwargs.text_embeds and
 *                   added_cond_kwargs.time_ids; LCM: timestep_cond (may be left out)   -> sample
 *   transformer     hidden_states (or sample), timestep, encoder_hidden_states, pooled_projections   -> sample
 *   text_encoder, text_encoder_2   input_ids   -> last_hidden_state, pooler_output, hidden_states.I (0: the embeddings, I: layer I, before
 *                   the final norm), text_embeds where there is a projection
 *   vae_encoder     sample (-1..1)   -> mean, logvar (clamped to -30..20) of the latents as the autoencoder knows them, unscaled
 *   vae_decoder     latents, unscaled   -> sample, not clamped
 * o as for sumi_model_load_with, NULL: the built-in model; a file or folder with that one part is enough.
 * SUMI_E_FORMAT: a tensor of `in` is missing, unknown or of the wrong shape; the message says what was expected. */
SUMI_API sumi_status sumi_run_module(sumi_context *ctx, const sumi_model_options *o, const char *module, const char *in, const char *out);
/* Names and shapes of what a module takes and gives, as text for people; module NULL: of every one that the model has.
 * *out is released with sumi_text_free. */
SUMI_API sumi_status sumi_list_module(sumi_context *ctx, const sumi_model_options *o, const char *module, char **out);

/* ---- converting -------------------------------------------------------------------------------------------------- */

/* Texts may be NULL. */
typedef struct sumi_convert_options {
    const char *type;      /* "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k",
                              "q4_k", "q5_k", "q6_k"; "keep", NULL: as they are */
    const char *layout;    /* names: "diffusers" ("unet.", "vae.", "text_encoder." before diffusers' own), "original" (the single
                              file of the family's authors), "keep", NULL: as they are */
    const char *format;    /* "safetensors", "gguf"; NULL: by out's extension */
    const char *vae;       /* a file whose autoencoder takes the place of in's */
    const char *keep_type; /* patterns between commas (fnmatch) of tensors, as out names them, that keep their type */
} sumi_convert_options;

/* Writes in, a file of any format that can be read, an index of shards or a folder in diffusers' layout, as the one file out, which
 * is complete or not there; out must be none of the files that are read (SUMI_E_ARG). FP8 and block types (q...) are given to
 * matrices alone whose rows are whole blocks: biases, norms, embeddings, first and last layers and the autoencoder keep their
 * type, and rows that do not divide become f16. A value that does not fit the type is SUMI_E_NUMERIC. Values that keep their type
 * keep their bits. Metadata is kept. Progress (stage "convert") counts bytes. *summary (may be NULL) gets lines about the types
 * that were given, for sumi_text_free. o and cb may be NULL. */
SUMI_API sumi_status sumi_convert(sumi_context *ctx, const char *in, const char *out, const sumi_convert_options *o, const sumi_callbacks *cb,
                                  char **summary);

/* ---- training ---------------------------------------------------------------------------------------------------- */

typedef struct sumi_train_options {
    int resume;          /* go on from the output folder's checkpoints; 0: they must not exist */
    const char *output;  /* NULL: the configuration's */
    const char *stage;   /* NULL: every stage that is not finished; "autoencoder", "latents", "flow", "export": up to that one */
    int64_t max_steps;   /* stop after so many steps of this call, with a checkpoint; 0: no limit */
} sumi_train_options;

/* Runs the configuration (docs/TRAINING.md). Progress comes through cb; the log is OUTPUT/log.jsonl. */
SUMI_API sumi_status sumi_train(sumi_context *ctx, const char *config, const sumi_train_options *o, const sumi_callbacks *cb);

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef struct sumi_score_options {
    const char *pictures, *index;            /* data set as tools/pictograms/prepare.py writes it */
    const char *styles;                      /* comma-separated; NULL: all in the index */
    int steps;                               /* 0: the model's default */
    float cfg_scale;                         /* -1: the model's default */
    int64_t seed;
    int limit;                               /* score only about so many pairs, evenly spread; 0: all */
    const char *save_dir;                    /* contact sheets of what was drawn go here; NULL: none */
} sumi_score_options;

typedef struct sumi_score_part { int pairs, top1, top5; } sumi_score_part;
typedef struct sumi_score { sumi_score_part trained, held_pairs, held_concepts; double seconds_per_picture; } sumi_score;

/* The concept score (docs/MODEL.md): draws `CAPTION, STYLE style` once per pair and looks for the nearest picture. */
SUMI_API sumi_status sumi_score_concepts(sumi_context *ctx, sumi_model *model, const sumi_score_options *o, const sumi_callbacks *cb, sumi_score *out);

#ifdef __cplusplus
}
#endif
#endif
