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
    const char *cpu; /* NULL or "auto": the best instruction set; else "scalar", "avx2", "avx512", "neon"; "exact" or a name with
                        "-exact": convolutions as direct sums instead of minimal filtering, slower, last bits differ */
    const char *compute; /* of modules that are run alone (sumi_run_module): NULL or "f32"; "bf16". Requests have it themselves */
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
    const char *taesd;           /* a tiny autoencoder of the same latents (TAESD), file or folder: for previews and vae_decoder
                                    taesd */
    const char *tokenizer;       /* folder with vocab.json and merges.txt, or a file as OpenAI publishes CLIP's */
    int low_memory;              /* 1: least memory first: one prediction at a time, weights dropped after use; slower, and above
                                    384 pixels a side decoded in tiles, which moves colours slightly */
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
 * model; nothing in a checkpoint is run. *out is released with sumi_text_free. */
SUMI_API sumi_status sumi_inspect(sumi_context *ctx, const char *path, int json, char **out);

/* Tokens of a text as text encoders get them: start, the text's, end; not padded, not cut. */
typedef struct sumi_tokens {
    size_t count;
    const int32_t *id;
    const char *const *text; /* spelled as in the vocabulary: "cat</w>" */
} sumi_tokens;

/* By the model's tokenizer, or, when vocab is not NULL, by CLIP's built-in vocabulary ("clip"), that of a file as
 * OpenAI publishes it (bpe_simple_vocab_16e6.txt.gz) or of a folder with vocab.json and merges.txt; model may be NULL then. */
SUMI_API sumi_status sumi_tokenize(sumi_context *ctx, const sumi_model *model, const char *vocab,
                                   const char *text, sumi_tokens **out);
SUMI_API void sumi_tokens_free(sumi_tokens *t);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* The table of generation parameters: X(type, field, default, low, high, flag, A1111's name, help).
 * It makes the struct below, the command's flags, validation, JSON schema, infotext and the reference page. A1111's name is the
 * infotext's key: written, in this order, where the value is not the row's default ("the model's default" is filled in before, so
 * that is always written). "" is never written; "K-1" and "K-2" on rows that follow each other are one key, "K: 512x768"; an INT
 * of 0..1 is "True" or "False". Words a TEXT parameter may take are listed in src/pipeline/choices.c. */
#define SUMI_PARAMS(X)                                                                                                     \
    X(TEXT, prompt, "", 0, 0, "prompt", "Prompt", "what to draw")                                                          \
    X(TEXT, negative_prompt, "", 0, 0, "negative", "Negative prompt", "what to steer away from")                           \
    X(TEXT, emphasis, "original", 0, 0, "emphasis", "Emphasis",                                                            \
      "prompt language, and how (words:1.2) weigh: original, no_norm, ignore, none as in A1111; comfy; compel; diffusers: " \
      "plain text, cut at 75 tokens")                                                                                      \
    X(INT, steps, 0, 0, 1000, "steps", "Steps", "sampling steps; 0: the model's default")                                  \
    X(TEXT, sampler, "", 0, 0, "sampler", "Sampler",                                                                       \
      "the way through the noise, one of the samplers listed below; empty: the model's default")                           \
    X(TEXT, schedule, "", 0, 0, "schedule", "Schedule type",                                                               \
      "normal, karras, beta, align_your_steps and others, see Schedules; empty: the model's default")                      \
    X(FLOAT, cfg_scale, SUMI_CFG_DEFAULT, -1000, 1000, "cfg", "CFG scale",                                                 \
      "classifier-free guidance scale, 1 is none, below 1 and negative ones turn away; -1000: the model's default")        \
    X(INT64, seed, -1, -1, 9007199254740991, "seed", "Seed", "noise of the first picture, the next ones count up; -1: random") \
    X(INT, width, 0, 0, 8192, "width", "Size-1", "pixels; 0: the model's default")                                         \
    X(INT, height, 0, 0, 8192, "height", "Size-2", "pixels; 0: the model's default")                                       \
    X(INT64, variation_seed, -1, -1, 9007199254740991, "variation-seed", "Variation seed",                                 \
      "whose noise variation-strength goes towards; the next pictures count it up, not the seed; -1: random")              \
    X(FLOAT, variation_strength, 0, 0, 1, "variation-strength", "Variation seed strength",                                 \
      "how far the start's noise goes from the seed's to the variation seed's; 0: off")                                    \
    X(INT, seed_resize_width, 0, 0, 8192, "seed-resize-width", "Seed resize from-1",                                       \
      "the start has the middle of the noise that the seed has at this size; 0: off")                                      \
    X(INT, seed_resize_height, 0, 0, 8192, "seed-resize-height", "Seed resize from-2", "see seed-resize-width")            \
    X(INT, count, 1, 1, 1024, "count", "", "pictures, each with a seed of its own")                                        \
    X(INT, choices, 1, 0, 1, "choices", "",                                                                                \
      "1: {red|blue} and __name__ in prompts are drawn by the picture's seed; 0: they are text")                           \
    X(TEXT, wildcards, "", 0, 0, "wildcards", "",                                                                          \
      "folder of NAME.txt, a line a choice, for __NAME__ in prompts; empty: such names are text")                          \
    X(TEXT, rng, "sumi", 0, 0, "rng", "RNG",                                                                               \
      "where noise comes from: sumi, torch (its CPU generator), philox (CUDA's); seeds of other programs need theirs")     \
    X(INT, clip_skip, 0, 0, 64, "clip-skip", "Clip skip",                                                                  \
      "take the text from this layer, counted from the last, which is 1; 0: the model's default")                          \
    X(INT64, ensd, 0, -9007199254740991, 9007199254740991, "ensd", "ENSD",                                                 \
      "eta noise seed delta: added to the seed for the noise that samplers draw on the way")                               \
    X(TEXT, prediction, "", 0, 0, "prediction", "Prediction type",                                                         \
      "epsilon, v_prediction, sample, flow_prediction, edm; empty: what the model says")                                   \
    X(INT, original_width, 0, 0, 16384, "original-width", "Original size-1",                                               \
      "XL: size of the picture that it should look taken from; 0: the picture's")                                          \
    X(INT, original_height, 0, 0, 16384, "original-height", "Original size-2", "XL: see original-width")                   \
    X(INT, crop_left, 0, 0, 16384, "crop-left", "Crop-1", "XL: where in that picture it should look cropped from")         \
    X(INT, crop_top, 0, 0, 16384, "crop-top", "Crop-2", "XL: see crop-left")                                               \
    X(INT, target_width, 0, 0, 16384, "target-width", "Target size-1", "XL: size that it was wanted at; 0: the picture's") \
    X(INT, target_height, 0, 0, 16384, "target-height", "Target size-2", "XL: see target-width")                           \
    X(FLOAT, aesthetic_score, 6, 0, 100, "aesthetic-score", "Aesthetic score", "XL refiner: rating of the prompt's picture") \
    X(FLOAT, negative_aesthetic_score, 2.5, 0, 100, "negative-aesthetic-score", "Negative aesthetic score",                \
      "XL refiner: rating of the negative prompt's")                                                                       \
    X(FLOAT, sigma_min, 0, 0, 100000, "sigma-min", "Schedule min sigma",                                                   \
      "lowest noise level before 0, where the schedule has a range; 0: the model's")                                       \
    X(FLOAT, sigma_max, 0, 0, 100000, "sigma-max", "Schedule max sigma", "highest noise level; 0: the model's")            \
    X(FLOAT, rho, 0, 0, 100, "rho", "Schedule rho", "exponent of the schedules karras (7) and polyexponential (1); 0: theirs") \
    X(TEXT, sigmas, "", 0, 0, "sigmas", "Sigmas",                                                                          \
      "falling noise levels instead of a schedule: 14.6,7.8,3,1,0, or a file of them; --steps follows")                    \
    X(INT, discard_next_to_last_sigma, -1, -1, 1, "discard-next-to-last-sigma", "Discard penultimate sigma",               \
      "1: one more step is made and the lowest level but 0 left out; -1: as the sampler's reference does")                 \
    X(FLOAT, shift, 0, 0, 1000, "shift", "Shift", "flow models: how far levels move up; 0: the model's")                   \
    X(INT, zero_snr, -1, -1, 1, "zero-snr", "Noise Schedule",                                                              \
      "1: betas are rescaled so that the last level is noise alone; 0: they are not; -1: as the model says")               \
    X(TEXT, beta_schedule, "", 0, 0, "beta-schedule", "Beta schedule",                                                     \
      "noise levels the model was trained with: linear, scaled_linear, squaredcos_cap_v2, sqrt, sigmoid, laplace, exp; empty: " \
      "what it says")                                                                                                      \
    X(FLOAT, eta, -1, -1, 100, "eta", "Eta", "how much of a step's noise is drawn anew; -1: the sampler's default")        \
    X(FLOAT, s_noise, 1, 0, 100, "s-noise", "Sigma noise", "factor of the noise that is drawn anew")                       \
    X(FLOAT, s_churn, 0, 0, 1000, "s-churn", "Sigma churn",                                                                \
      "noise added before each step, in all (Karras et al. 2022); for euler, heun, dpm2")                                  \
    X(FLOAT, s_tmin, 0, 0, 100000, "s-tmin", "Sigma tmin", "lowest noise level that churn acts at")                        \
    X(FLOAT, s_tmax, 0, 0, 100000, "s-tmax", "Sigma tmax", "highest one; 0: any")                                          \
    X(FLOAT, image_guidance_scale, 1.5, -1000, 1000, "image-cfg", "Image CFG scale",                                       \
      "edit models (InstructPix2Pix): scale of the picture's guidance, 1 is none")                                         \
    X(TEXT, guidance, "cfg", 0, 0, "guidance", "Guidance",                                                                 \
      "cfg; apg: projected, on the model's outputs as in diffusers; apg_x0: on x0 as in ComfyUI")                          \
    X(FLOAT, guidance_start, 0, 0, 1, "guidance-start", "Guidance start", "share of the steps that come before guidance acts") \
    X(FLOAT, guidance_stop, 1, 0, 1, "guidance-stop", "Guidance stop", "share of the steps after which it acts no more")   \
    X(FLOAT, guidance_sigma_min, 0, 0, 100000, "guidance-sigma-min", "Guidance sigma min",                                 \
      "lowest noise level at which it acts (A1111's NGMS of all steps)")                                                   \
    X(FLOAT, guidance_sigma_max, 0, 0, 100000, "guidance-sigma-max", "Guidance sigma max",                                 \
      "highest noise level at which it acts; 0: any")                                                                      \
    X(TEXT, cfg_mode, "constant", 0, 0, "cfg-mode", "CFG mode",                                                            \
      "how the scale changes: constant; linear, cosine, half_cosine or power with _down or _up; linear_repeating, "        \
      "cosine_repeating, sawtooth; wang_linear, wang_cosine, power_cosine")                                                \
    X(FLOAT, cfg_scale_min, -1000, -1000, 1000, "cfg-scale-min", "CFG scale minimum",                                      \
      "where cfg-mode's curve is 0; -1000: 0, of the last three 1")                                                        \
    X(FLOAT, sched_val, 4, 0, 1000, "sched-val", "Scheduler value",                                                        \
      "exponent of the curves called power, number of waves of the repeating ones")                                        \
    X(FLOAT, guidance_rescale, 0, 0, 1, "guidance-rescale", "CFG Rescale phi",                                             \
      "how much of the unguided prediction's contrast is given back (Lin et al. 2024)")                                    \
    X(FLOAT, mimic_scale, 0, 0, 1000, "mimic-scale", "Mimic scale",                                                        \
      "dynamic thresholding: the scale whose contrast a high --cfg gets; 0: off")                                          \
    X(FLOAT, threshold_percentile, 100, 0, 100, "threshold-percentile", "Threshold percentile",                            \
      "dynamic thresholding: values above it are cut")                                                                     \
    X(TEXT, mimic_mode, "constant", 0, 0, "mimic-mode", "Mimic mode", "how the mimic scale changes: see cfg-mode")         \
    X(FLOAT, mimic_scale_min, -1000, -1000, 1000, "mimic-scale-min", "Mimic scale minimum", "see cfg-scale-min")           \
    X(INT, separate_feature_channels, 1, 0, 1, "separate-feature-channels", "Separate Feature Channels",                   \
      "dynamic thresholding: 1: each channel by itself; 0: all together")                                                  \
    X(TEXT, scaling_startpoint, "mean", 0, 0, "scaling-startpoint", "Scaling Startpoint",                                  \
      "dynamic thresholding: values shrink towards their mean, or zero")                                                   \
    X(TEXT, variability_measure, "ad", 0, 0, "variability-measure", "Variability Measure",                                 \
      "dynamic thresholding: ad (largest value), std (deviation)")                                                         \
    X(FLOAT, interpolate_phi, 1, 0, 1, "interpolate-phi", "Interpolate Phi",                                               \
      "dynamic thresholding: how much of it; the rest is plain guidance")                                                  \
    X(FLOAT, dynamic_thresholding_ratio, 0, 0, 1, "dynamic-thresholding-ratio", "Dynamic thresholding ratio",              \
      "Imagen's: share of x0's values that is kept, the rest is cut and all shrink to -1..1; 0: off, 0.995 is usual for models " \
      "of pixels")                                                                                                         \
    X(FLOAT, sample_max_value, 0, 0, 100000, "sample-max-value", "Sample max value",                                       \
      "largest value that Imagen's thresholding cuts at; 0: any")                                                          \
    X(FLOAT, apg_eta, 0, -10, 10, "apg-eta", "APG eta",                                                                    \
      "projected guidance: how much of the part along the prediction stays; diffusers' and ComfyUI's default is 1")        \
    X(FLOAT, apg_momentum, -0.5, -1, 1, "apg-momentum", "APG momentum",                                                    \
      "projected guidance: weight of the earlier steps'; diffusers' and ComfyUI's default is 0")                           \
    X(FLOAT, apg_norm_threshold, 15, 0, 100000, "apg-norm-threshold", "APG norm threshold",                                \
      "projected guidance: longest difference; 0: any; diffusers' default is 15, ComfyUI's 5")                             \
    X(FLOAT, pag_scale, 0, 0, 1000, "pag", "PAG scale", "perturbed-attention guidance, 3 is usual; 0: off")                \
    X(FLOAT, pag_adaptive_scale, 0, 0, 1000, "pag-adaptive", "PAG adaptive scale",                                         \
      "how much less of it for every timestep below 1000")                                                                 \
    X(TEXT, pag_applied_layers, "mid", 0, 0, "pag-layers", "PAG layers",                                                   \
      "self-attentions that it perturbs: regular expressions between commas, found in their names: mid, down_blocks.2, "   \
      "up_blocks.1.attentions.0")                                                                                          \
    X(FLOAT, sag_scale, 0, -1000, 1000, "sag", "SAG scale", "self-attention guidance, 0.75 is usual; 0: off")              \
    X(FLOAT, sag_blur_sigma, 1, 0.01, 100, "sag-blur", "SAG blur sigma", "deviation of its blur, in latent pixels")        \
    X(TEXT, classifier, "", 0, 0, "classifier", "Classifier",                                                              \
      "classifier guidance: file of a classifier of this model's noisy latents, in guided-diffusion's layout; empty: none") \
    X(TEXT, classifier_class, "", 0, 0, "class", "Classifier class",                                                       \
      "the class that it draws towards: a number from 0, or a name that the file has")                                     \
    X(FLOAT, classifier_scale, 1, -1000, 1000, "classifier-scale", "Classifier scale",                                     \
      "how strongly; below 0 away from the class")                                                                         \
    X(TEXT, classifier_hash, "", 0, 0, "classifier-hash", "Classifier hash",                                               \
      "first ten digits of the file's SHA-256, which must agree; empty: any")                                              \
    X(TEXT, freeu, "", 0, 0, "freeu", "FreeU", "v1, v2 (as in ComfyUI), diffusers (v1 on the first two up blocks); empty: off") \
    X(FLOAT, freeu_b1, -1, -1, 10, "freeu-b1", "FreeU b1", "factor of the widest features; -1: the version's")             \
    X(FLOAT, freeu_b2, -1, -1, 10, "freeu-b2", "FreeU b2", "factor of the next ones")                                      \
    X(FLOAT, freeu_s1, -1, -1, 10, "freeu-s1", "FreeU s1",                                                                 \
      "factor of the lowest frequencies that skip connections bring to the widest features")                               \
    X(FLOAT, freeu_s2, -1, -1, 10, "freeu-s2", "FreeU s2", "the same for the next ones")                                   \
    X(TEXT, step_cache, "", 0, 0, "step-cache", "Step cache",                                                              \
      "faster and only nearly the same picture: steps use again what earlier ones computed; deepcache (UNets), taylorseer, " \
      "easycache, teacache; empty: off")                                                                                   \
    X(INT, cache_interval, 0, 0, 1000, "cache-interval", "Cache interval",                                                 \
      "deepcache, taylorseer: every so many steps one is computed in full; 0: the technique's own, 3")                     \
    X(INT, cache_branch, 0, 0, 127, "cache-branch", "Cache branch",                                                        \
      "deepcache: how many of a UNet's skip connections the steps between compute, less one")                              \
    X(INT, cache_order, -1, -1, 4, "cache-order", "Cache order",                                                           \
      "derivatives that a forecast takes into account; -1: taylorseer 1, deepcache 0, which keeps what it has")            \
    X(FLOAT, cache_threshold, 0, 0, 1000, "cache-threshold", "Cache threshold",                                            \
      "easycache, teacache: change at which a step is computed again; 0: 0.1 and 0.2")                                     \
    X(TEXT, cache_coefficients, "", 0, 0, "cache-coefficients", "Cache coefficients",                                      \
      "teacache: polynomial of the change, highest power first, as published for a model; empty: the change itself")       \
    X(FLOAT, cache_start, -1, -1, 1, "cache-start", "Cache start",                                                         \
      "share of the steps that come before it acts; -1: 0.15, deepcache 0")                                                \
    X(FLOAT, cache_end, -1, -1, 1, "cache-end", "Cache end",                                                               \
      "share of the steps after which it acts no more; -1: 0.95, deepcache 1")                                             \
    X(FLOAT, token_merging_ratio, 0, 0, 1, "token-merging-ratio", "Token merging ratio",                                   \
      "share of the tokens that join others in a UNet's self-attention, 0.5 is usual: faster, not exact; 0: off")          \
    X(FLOAT, token_merging_ratio_hr, 0, 0, 1, "token-merging-ratio-hr", "Token merging ratio hr",                          \
      "the same in hires fix's second pass; 0: as in the first")                                                           \
    X(INT, token_merging_max_downsample, 1, 1, 128, "token-merging-max-downsample", "Token merging maximum down sampling", \
      "smallest attention that merges, as 1/N of the latents' side: 1, 2, 4, 8")                                           \
    X(INT, token_merging_random, 1, 0, 1, "token-merging-random", "Token merging random",                                  \
      "1: which token of four others may join is drawn for every call (tomesd's default); 0: the first (A1111's)")         \
    X(TEXT, compute, "f32", 0, 0, "compute", "Compute",                                                                    \
      "f32, or bf16: the text's and the denoiser's products round what they multiply; needs AVX512_BF16; faster, not exact") \
    X(TEXT, edit_from_prompt, "", 0, 0, "edit-from-prompt", "P2P source prompt",                                           \
      "Prompt-to-Prompt: the picture that this prompt would draw, changed to what --prompt says")                          \
    X(TEXT, p2p_mode, "", 0, 0, "p2p-mode", "P2P mode",                                                                    \
      "replace (words by words), refine (words are added or left out); empty: by the prompts' tokens")                     \
    X(TEXT, p2p_cross_steps, "0.8", 0, 0, "p2p-cross-steps", "P2P cross steps",                                            \
      "share of the steps that keep the source's attention to words, all or some: 0.8, hat:0.2, cat:0.1-0.5")              \
    X(TEXT, p2p_self_steps, "0.4", 0, 0, "p2p-self-steps", "P2P self steps",                                               \
      "share of the steps that keep the source's self-attention, its shapes: 0.4, or 0.1-0.4")                             \
    X(INT, p2p_self_size, 32, 0, 512, "p2p-self-size", "P2P self size",                                                    \
      "self-attention of up to so many places a side is kept; 16 in the paper's first code")                               \
    X(TEXT, p2p_reweight, "", 0, 0, "p2p-reweight", "P2P reweight",                                                        \
      "factors of the attention to words, as fluffy:2, snow:0.5; alone it needs no source prompt")                         \
    X(TEXT, p2p_blend, "", 0, 0, "p2p-blend", "P2P blend",                                                                 \
      "words between commas, of either prompt: the picture changes only where they are; empty: anywhere")                  \
    X(TEXT, p2p_blend_subtract, "", 0, 0, "p2p-blend-subtract", "P2P blend subtract",                                      \
      "words where it does not change, though those of p2p-blend are there")                                               \
    X(FLOAT, p2p_blend_start, 0.2, 0, 1, "p2p-blend-start", "P2P blend start",                                             \
      "share of the steps that come before p2p-blend acts")                                                                \
    X(FLOAT, p2p_blend_threshold, 0.3, 0, 1, "p2p-blend-threshold", "P2P blend threshold",                                 \
      "share of the largest attention above which a place counts as the words'")                                           \
    X(TEXT, init_image, "", 0, 0, "init-image", "Init image",                                                              \
      "picture to begin from: PNG, JPEG or WebP; sets the size unless --size does")                                        \
    X(FLOAT, strength, -1, -1, 1, "strength", "Denoising strength",                                                        \
      "how far from the init image, or from the upscaled picture, to go; -1: 0.75, hires fix 0.7, edit models and extended " \
      "pictures 1")                                                                                                        \
    X(INT, exact_steps, 0, 0, 1, "exact-steps", "Exact steps",                                                             \
      "1: --steps are run whatever the strength; 0: only the part of them that it leaves")                                 \
    X(TEXT, edit_rules, "a1111", 0, 0, "edit-rules", "Edit rules",                                                         \
      "a1111 or diffusers: whose way strength counts steps and masks blend")                                               \
    X(TEXT, resize_mode, "resize", 0, 0, "resize-mode", "Resize mode",                                                     \
      "init image of another size: resize, crop, fill, or latent (resized after encoding)")                                \
    X(TEXT, resize_filter, "lanczos", 0, 0, "resize-filter", "Resize filter",                                              \
      "lanczos, bicubic, bilinear, hamming, box, nearest")                                                                 \
    X(TEXT, vae_encode, "sample", 0, 0, "vae-encode", "VAE encode",                                                        \
      "latents of the init image: sample (with the autoencoder's own noise) or mean")                                      \
    X(INT, invert, 0, 0, 1, "invert", "Invert",                                                                            \
      "1: begin from the init image run backwards to noise (DDIM inversion), not from drawn noise")                        \
    X(TEXT, invert_prompt, "", 0, 0, "invert-prompt", "Invert prompt",                                                     \
      "what the init image shows, for the inversion; empty: no words, with Prompt-to-Prompt the source's")                 \
    X(FLOAT, invert_cfg, 1, -1000, 1000, "invert-cfg", "Invert CFG scale", "guidance scale of the inversion")              \
    X(INT, invert_steps, 0, 0, 1000, "invert-steps", "Invert steps",                                                       \
      "steps of the inversion; 0: those that will be drawn, in reverse")                                                   \
    X(INT, invert_refine, 0, 0, 100, "invert-refine", "Invert refine",                                                     \
      "further calls in each of its steps, towards exactly where drawing's step comes down from")                          \
    X(TEXT, mask, "", 0, 0, "mask", "Mask", "picture of the init image's size, white where it is to be drawn anew")        \
    X(FLOAT, mask_blur, -1, -1, 64, "mask-blur", "Mask blur", "deviation in pixels; -1: 4, with diffusers' rules 0")       \
    X(INT, mask_invert, 0, 0, 1, "mask-invert", "Mask mode", "1: black is drawn anew instead")                             \
    X(TEXT, masked_content, "", 0, 0, "masked-content", "Masked content",                                                  \
      "what is under the mask at first: original, fill, latent noise, latent nothing; empty: original, fill where a picture is " \
      "extended")                                                                                                          \
    X(INT, only_masked, 0, 0, 1, "only-masked", "Inpaint area",                                                            \
      "1: the mask's surroundings are drawn at full size and put back")                                                    \
    X(INT, mask_padding, -1, -1, 4096, "mask-padding", "Masked area padding",                                              \
      "pixels around the mask, with only-masked; -1: 32")                                                                  \
    X(INT, outpaint_left, 0, 0, 4096, "outpaint-left", "Outpaint left", "pixels by which the init image is extended")      \
    X(INT, outpaint_right, 0, 0, 4096, "outpaint-right", "Outpaint right", "see outpaint-left")                            \
    X(INT, outpaint_up, 0, 0, 4096, "outpaint-up", "Outpaint up", "see outpaint-left")                                     \
    X(INT, outpaint_down, 0, 0, 4096, "outpaint-down", "Outpaint down", "see outpaint-left")                               \
    X(FLOAT, hires_upscale, 0, 0, 8, "hires-upscale", "Hires upscale",                                                     \
      "hires fix: draw, enlarge by this factor, draw over with --strength; 0: off")                                        \
    X(INT, hires_width, 0, 0, 8192, "hires-width", "Hires resize-1",                                                       \
      "hires fix: enlarge to this width instead; 0: by height or factor")                                                  \
    X(INT, hires_height, 0, 0, 8192, "hires-height", "Hires resize-2", "see hires-width")                                  \
    X(TEXT, hires_upscaler, "", 0, 0, "hires-upscaler", "Hires upscaler",                                                  \
      "Latent, Latent (antialiased), Latent (bicubic), Latent (bicubic antialiased), "                                     \
      "Latent (nearest), Latent (nearest-exact); of pixels: Lanczos, Nearest; empty: Latent")                              \
    X(INT, hires_steps, 0, 0, 1000, "hires-steps", "Hires steps", "steps of the second pass; 0: as the first")             \
    X(TEXT, refiner, "", 0, 0, "refiner", "Refiner",                                                                       \
      "model that takes over the last steps (XL's refiner): file, folder or name; empty: none")                            \
    X(FLOAT, refiner_switch_at, 0.8, 0.01, 1, "refiner-switch-at", "Refiner switch at",                                    \
      "share of the noise levels that come before it takes over")                                                          \
    X(TEXT, tile, "", 0, 0, "tile", "Tiling", "edges that meet when the picture is repeated: x, y or both; empty: none")   \
    X(INT, vae_tile, -1, -1, 8192, "vae-tile", "VAE tile",                                                                 \
      "decode in tiles of so many pixels a side; 0: never, -1: above 1024x1024 in area, with --low-memory above 384 a side") \
    X(TEXT, vae_decoder, "full", 0, 0, "vae-decoder", "VAE Decoder",                                                       \
      "full: the model's; taesd: the tiny one that --taesd names, faster, less exact")                                     \
    X(TEXT, vae_encoder, "full", 0, 0, "vae-encoder", "VAE Encoder", "the same of the pictures that a request begins from") \
    X(TEXT, init_latents, "", 0, 0, "init-latents", "Initial latents",                                                     \
      "safetensors file whose tensor latents [N,C,h,w] is the start noise (unit normals)")                                 \
    X(INT, init_latents_at, 0, 0, 1000000, "init-latents-at", "Initial latents at",                                        \
      "which of them is the first picture's, from 0; the next ones follow")                                                \
    X(TEXT, save_latents, "", 0, 0, "save-latents", "", "safetensors file for the result before decoding, latents [N,C,h,w]") \
    X(TEXT, save_inverted, "", 0, 0, "save-inverted", "",                                                                  \
      "safetensors file for what the inversion comes to, as init-latents takes it")                                        \
    X(INT, save_steps, 0, 0, 1, "save-steps", "", "1: save-latents and save-inverted hold every step too, as latents.STEP")

#define SUMI_CFG_DEFAULT (-1000) /* of cfg_scale: the model's own */
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

/* Every parameter at the default of its row in SUMI_PARAMS. */
SUMI_API sumi_request sumi_request_default(void);
/* The table, *n rows. */
SUMI_API const sumi_param_info *sumi_params(size_t *n);
/* The row of that name: the field's, the flag ('-' and '_' are the same), A1111's API's ("subseed", "denoising_strength") or,
 * letter case aside, its infotext's; NULL: none. */
SUMI_API const sumi_param_info *sumi_param_find(const char *name);
/* Sets a parameter from text ("steps", "20"), checking type and range. name as above. */
SUMI_API sumi_status sumi_request_set(sumi_context *ctx, sumi_request *r, const char *name, const char *value);

/* Takes Midjourney's suffixes off r->prompt ("a red apple --ar 16:9 --no leaves") and sets what they mean; they win over what r
 * says:
 *   --ar W:H          size: these proportions at the area that r or else the model has
 *   --no THINGS       added to the negative prompt
 *   --seed N, --repeat N, --image FILE, --tile   seed, count, init_image, tile both
 *   --chaos 0..100    variety: guidance_start, half as many per cent of the steps come before guidance acts
 *   --stylize 0..1000 cfg_scale times 2^((100 - N) / 600): below 100 closer to the words, above freer
 *   --quality Q       steps times Q
 *   --iw 0..3         strength 1 - N / 4
 * --v, --niji, --style, --raw, --fast, --relax, --turbo, --draft, --stealth and --public name Midjourney's own models and queues
 * and are dropped. Any other must be a flag of SUMI_PARAMS. *texts holds what r borrows then, for sumi_text_free; NULL where r
 * stays as it is. SUMI_E_ARG: an unknown suffix or a bad value; r is untouched. */
SUMI_API sumi_status sumi_request_midjourney(sumi_context *ctx, const sumi_model *model, sumi_request *r, char **texts);
/* What is made of r's prompts: texts by calls of the denoiser, sides of AND, chunks, weights, networks, with Prompt-to-Prompt
 * whose attention each token takes over; as text for people (json = 0) or JSON. *out is released with sumi_text_free. */
SUMI_API sumi_status sumi_prompt_explain(sumi_context *ctx, const sumi_model *model, const sumi_request *r, int json, char **out);

/* The i-th word that the parameter of that name takes and, in *a1111 (may be NULL), how A1111 spells it; NULL past the last, or
 * where any value goes. A word with several spellings comes several times. */
SUMI_API const char *sumi_param_choice(const char *name, size_t i, const char **a1111);
/* The table as JSON Schema (draft 2020-12) of an object whose members are parameters, or, with markdown = 1, as the page
 * docs/PARAMETERS.md. *out is released with sumi_text_free. */
SUMI_API sumi_status sumi_schema(sumi_context *ctx, int markdown, char **out);
/* Reads a request from one line onto *r: a JSON object of parameters, or a prompt and then flags, "a red apple --steps 20
 * --negative blurry", words with blanks in quotes. Words that begin with "--" and are no flag go to the prompt, for
 * sumi_request_midjourney. *texts holds what r borrows; it is released with sumi_text_free, in failure NULL. */
SUMI_API sumi_status sumi_request_read(sumi_context *ctx, const char *line, sumi_request *r, char **texts);

/* ---- infotexts: what a picture was drawn with ----------------------------------------------------------------------- */

/* "Steps: 20"; understood: sumi can do what it says, or needs not. */
typedef struct sumi_field { const char *key, *value; int understood; } sumi_field;

typedef struct sumi_infotext {
    sumi_request request;     /* defaults where the text says nothing */
    sumi_model_options model; /* files that sumi was given, NULL: the built-in model, or another program's text */
    const char *model_name, *model_hash, *version; /* "" where it does not say */
    size_t count;             /* keys in their order, the prompts not among them; 0: no parameters, the text is all prompt */
    const sumi_field *field;
} sumi_infotext;

/* Reads a text of parameters in A1111's format, its own or that of sumi and of the many programs that write it. Whatever it holds
 * is kept in field; values that make no sense are not taken over. Fails for what is not UTF-8. Texts live as long as *out. */
SUMI_API sumi_status sumi_infotext_parse(sumi_context *ctx, const char *text, sumi_infotext **out);
SUMI_API void sumi_infotext_free(sumi_infotext *t);
/* The infotext of a picture file, and whatever else its metadata says of its making (ComfyUI's graphs), for people (json = 0) or
 * as one line of JSON. *found: whether it says anything. */
SUMI_API sumi_status sumi_picture_info(sumi_context *ctx, const char *path, int json, int *found, char **out);
/* First ten digits of the SHA-256 of the model's file, A1111's "Model hash"; "" for a folder. Read when first asked for. */
SUMI_API const char *sumi_model_hash(const sumi_model *model);

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
 * beta_schedule and discard_next_to_last_sigma; the rest does not matter, the prompt may be empty. Either of a model or, model
 * NULL, of a family: "sd15", "sdxl", "vp:BETA[:START:END]" (BETA as in beta_schedule), "edm[:MIN:MAX]", "flow[:SHIFT]", whose
 * defaults are 20 steps of euler on normal. Released with sumi_levels_free. */
SUMI_API sumi_status sumi_schedule_levels(sumi_context *ctx, const sumi_model *model, const char *family,
                                          const sumi_request *r, sumi_levels **out);
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
    /* The step's current estimate of picture `index`, RGB, 8 bit, at the latent's size (a latent's block of pixels averaged), of
     * the tiny decoder at the picture's; good during the call. The result is not touched. May be NULL. */
    void (*preview)(void *user, int index, int step, int width, int height, const uint8_t *rgb);
    int preview_every; /* steps from one preview to the next; 0 and 1: every step */
    /* NULL, "full": each preview costs a decoding; "taesd": one by the tiny decoder, which the model's options name;
     * "approx-cheap": a sum over the latent's channels, for latents without published factors fitted to the first preview, which
     * is decoded. */
    const char *preview_method;
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
 * any count (picture k of a batch equals a single picture with seed + k or, with a variation, variation_seed + k). A message of
 * progress names parameters that have no effect. cb may be NULL. */
SUMI_API sumi_status sumi_generate(sumi_context *ctx, sumi_model *model, const sumi_request *r, const sumi_callbacks *cb,
                                   sumi_images **out);
SUMI_API size_t sumi_images_count(const sumi_images *im);
SUMI_API const sumi_image *sumi_images_at(const sumi_images *im, size_t i);
SUMI_API void sumi_images_free(sumi_images *im);

/* PNG, JPEG or WebP by the extension; infotext goes into the file's metadata. Written whole or not at all. */
SUMI_API sumi_status sumi_image_save(sumi_context *ctx, const sumi_image *im, const char *path);
SUMI_API sumi_status sumi_image_load(sumi_context *ctx, const char *path, sumi_images **out);

/* Grids. An axis is "NAME=VALUES": the name of a parameter and values between commas, of numbers also ranges: "1-5" counts by
 * ones, "1-10 (+2)" by twos, "1-10 [5]" gives five of even distance; quotes hold a comma. "Prompt S/R=red,green,blue" replaces
 * the first word in both prompts by each, "Prompt order=a,b,c" puts the words in the prompt into every order. */
typedef struct sumi_grid_options {
    const char *x, *y, *z; /* columns, rows, sheets; NULL: none */
    int legend;            /* 1: titles of columns and rows, and below what all pictures share */
    int margin;            /* pixels between pictures */
} sumi_grid_options;

/* Draws the request for every combination of values, one picture each. *out gets the sheets, *sheets of them (1, or one for each
 * value of z), and after them the pictures, x first, then y, then z. A seed of -1 is drawn once for all. */
SUMI_API sumi_status sumi_grid(sumi_context *ctx, sumi_model *model, const sumi_request *r, const sumi_grid_options *o,
                               const sumi_callbacks *cb, int *sheets, sumi_images **out);

typedef struct sumi_plan_info {
    size_t weight_bytes;     /* model file, mapped */
    size_t packed_bytes;     /* prepared weights, all components together */
    size_t activation_bytes; /* largest component */
    size_t peak_bytes;       /* largest sum during the request */
    double encode_flops, step_flops, decode_flops, total_flops; /* step: a mean one of the whole batch, with guidance, nothing
                                                                   spared by change (easycache, teacache); total 0: not known
                                                                   (dpm_adaptive) */
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
    const char *include;     /* patterns between commas (fnmatch; * matches slashes too): these files instead of what sumi
                                needs */
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
 * leaves what it fetched, and the next goes on from there; files get their names once their digest was compared (sha256, git's
 * for small ones). Two calls at once for one model wait for each other. SUMI_E_NETWORK: the server's side. o, cb and out may be
 * NULL; *out is released with sumi_pulled_free. */
SUMI_API sumi_status sumi_pull(sumi_context *ctx, const char *what, const sumi_pull_options *o, const sumi_callbacks *cb,
                               sumi_pulled **out);
SUMI_API void sumi_pulled_free(sumi_pulled *p);

typedef struct sumi_model_entry {
    const char *name;        /* for --model, sumi_models_find and sumi_models_remove: OWNER/NAME[@REVISION], an address;
                                "built-in" */
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

/* Runs text_encoder, text_encoder_2, unet, transformer, vae_encoder or vae_decoder once on the tensors of the file `in` and
 * writes what it gives, in f32, to the safetensors file `out`, whole or not at all. Names and shapes are those of diffusers and
 * transformers, pictures and latents [N,C,H,W]; every tensor of the file must be an input. Batches may have any size.
 *   unet            sample, timestep ([N], [1] or []), encoder_hidden_states; XL: added_cond_kwargs.text_embeds and
 *                   added_cond_kwargs.time_ids; LCM: timestep_cond (may be left out)   -> sample
 *   transformer     hidden_states (or sample), timestep, encoder_hidden_states, pooled_projections   -> sample
 *   text_encoder, text_encoder_2 input_ids -> last_hidden_state, pooler_output, hidden_states.I (0: the embeddings, I: layer I,
 *   before
 *                   the final norm), text_embeds where there is a projection
 *   vae_encoder     sample (-1..1)   -> mean, logvar (clamped to -30..20) of the latents as the autoencoder knows them, unscaled
 *   vae_decoder     latents, unscaled   -> sample, not clamped
 * o as for sumi_model_load_with, NULL: the built-in model; a file or folder with that one part is enough.
 * SUMI_E_FORMAT: a tensor of `in` is missing, unknown or of the wrong shape; the message says what was expected. */
SUMI_API sumi_status sumi_run_module(sumi_context *ctx, const sumi_model_options *o, const char *module,
                                     const char *in, const char *out);
/* The same, evaluated `times` times (at least once) on the same tensors; seconds[i] gets what evaluation i alone took, without
 * opening and planning. The first one also brings the weights into memory. */
SUMI_API sumi_status sumi_time_module(sumi_context *ctx, const sumi_model_options *o, const char *module,
                                      const char *in, const char *out, int times, double *seconds);
/* The same with a table for people of where the time went, by operation (convolutions also by size and form, and with what is
 * done beside them), most first: nodes, milliseconds an evaluation, those of them in which weights are made ready, processor time
 * of all threads, its share, rates by that time of the operations' flops (of direct sums) and bytes; of all evaluations but the
 * first where there are several. *table is released with sumi_text_free. */
SUMI_API sumi_status sumi_profile_module(sumi_context *ctx, const sumi_model_options *o, const char *module,
                                         const char *in, const char *out, int times, double *seconds, char **table);
/* Names and shapes of what a module takes and gives, as text for people; module NULL: of every one that the model has.
 * *out is released with sumi_text_free. */
SUMI_API sumi_status sumi_list_module(sumi_context *ctx, const sumi_model_options *o, const char *module, char **out);

/* ---- converting -------------------------------------------------------------------------------------------------- */

/* Texts may be NULL. */
typedef struct sumi_convert_options {
    const char *type;      /* "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k",
                              "q4_k", "q5_k", "q6_k"; "keep", NULL: as they are */
    const char *layout;    /* names: "diffusers" ("unet.", "vae.", "text_encoder." before diffusers' own), "original" (the single
                              file of the family's authors; UNets alone have one), "keep", NULL: as they are */
    const char *format;    /* "safetensors", "gguf"; NULL: by out's extension */
    const char *vae;       /* a file whose autoencoder takes the place of in's */
    const char *keep_type; /* patterns between commas (fnmatch) of tensors, as out names them, that keep their type */
} sumi_convert_options;

/* Writes in, a file of any format that can be read, an index of shards or a folder in diffusers' layout, as the one file out,
 * which is complete or not there; out must be none of the files that are read (SUMI_E_ARG). FP8 and block types (q...) are given
 * to matrices alone whose rows are whole blocks: biases, norms, embeddings, first and last layers and the autoencoder keep their
 * type, and rows that do not divide become f16. A value that does not fit the type is SUMI_E_NUMERIC. Values that keep their type
 * keep their bits. Metadata is kept. Progress (stage "convert") counts bytes. *summary (may be NULL) gets lines about the types
 * that were given, for sumi_text_free. o and cb may be NULL. */
SUMI_API sumi_status sumi_convert(sumi_context *ctx, const char *in, const char *out, const sumi_convert_options *o,
                                  const sumi_callbacks *cb, char **summary);

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
SUMI_API sumi_status sumi_score_concepts(sumi_context *ctx, sumi_model *model, const sumi_score_options *o,
                                         const sumi_callbacks *cb, sumi_score *out);

#ifdef __cplusplus
}
#endif
#endif
