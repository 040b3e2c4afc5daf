/* What the layout files share: alias tables, the numbers in names, and where the layouts number differently.
 *
 * A row says that two names mean the same tensor. In both patterns '#' stands for a number, in order, and '*' at the end for
 * the rest, which is the same on both sides. A row's numbering relates the leading numbers of the canonical name to those of
 * the other; it is a list of pairs made from the model's shape, so that both directions read the same list. */
#ifndef SM_LAYOUT_IMPL_H
#define SM_LAYOUT_IMPL_H

#include "model/layout.h"
#include "model/model.h"

enum {
    SM_LAYOUT_NAME = 512,             /* longest stored name that is looked at, canonical ones are a little longer */
    SM_LAYOUT_LAYERS = 17,            /* most resnets in a block: unet.c's 16, one more on the way up */
    SM_LAYOUT_PLACES = SM_BLOCKS * (SM_LAYOUT_LAYERS + 1) + 1, /* of input_blocks, output_blocks */
    SM_LAYOUT_NUMBERS = 4             /* most '#' in a pattern */
};

typedef enum sm_numbering {
    SM_NUM_SAME,
    SM_NUM_DOWN,        /* block, layer <-> place in input_blocks */
    SM_NUM_DOWNSAMPLER, /* block <-> place in input_blocks */
    SM_NUM_UP,          /* block, layer <-> place in output_blocks */
    SM_NUM_UPSAMPLER_1, /* block <-> place in output_blocks, where it comes after a resnet */
    SM_NUM_UPSAMPLER_2, /* the same, after a resnet and attention */
    SM_NUM_ADDED,       /* no numbers: label_emb is the added text and sizes (XL) */
    SM_NUM_CLASS,       /* no numbers: label_emb is a class embedding (unCLIP) */
    SM_NUM_REVERSE,     /* block <-> block, counted from the other end */
    SM_NUMBERINGS
} sm_numbering;

/* How the stored tensor's bytes become the canonical one's. */
typedef enum sm_alias_how {
    SM_AS_IS,
    SM_LINEAR,          /* stored [R,C,1,1] (or [R,C,1]), canonical [R,C]; other ranks as they are */
    SM_THIRD,           /* rows part*R/3 .. (part+1)*R/3 of the stored one */
    SM_TRANSPOSED       /* rank 2 */
} sm_alias_how;

typedef struct sm_alias {
    const char *canonical, *stored;
    sm_numbering numbering;
    sm_alias_how how;
    int part;           /* SM_THIRD: 0..2; these three rows follow each other and have equal stored patterns */
} sm_alias;

typedef struct sm_alias_table {
    const sm_alias *rows;
    size_t count;
} sm_alias_table;

extern const sm_alias_table sm_aliases_unet, sm_aliases_vae, sm_aliases_vae_old, sm_aliases_clip, sm_aliases_clip_flat,
    sm_aliases_openclip;

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

typedef struct sm_match {
    int n, num[SM_LAYOUT_NUMBERS];
    const char *rest;   /* what '*' stands for */
} sm_match;

bool sm_pattern_match(const char *pattern, const char *name, sm_match *m);

/* Pairs of leading numbers; canonical names have nc of them, stored ones ns. */
typedef struct sm_relation {
    int nc, ns, count;
    struct { int c[2], s; } pair[SM_BLOCKS * SM_LAYOUT_LAYERS];
} sm_relation;

/* What names tell about a component's shape, in either layout, and the relations that follow from it. Zeroed at first;
 * every name of the component is noted, then sm_shape_relate is called. */
typedef struct sm_shape {
    int layers[SM_BLOCKS], downsamplers[SM_BLOCKS], up_layers[SM_BLOCKS], up_attended[SM_BLOCKS], upsamplers[SM_BLOCKS];
                                             /* per block, highest number seen plus one */
    int inputs, outputs;                     /* places seen, likewise */
    bool op[SM_LAYOUT_PLACES];               /* a downsampler is at this place of input_blocks */
    uint8_t conv[SM_LAYOUT_PLACES];          /* an upsampler is at this place of output_blocks, behind so many modules */
    int vae_ups;                             /* blocks of the decoder */
    bool class_embedding, class_places;      /* a class embedding in canonical names; label_emb is one */
    sm_relation relation[SM_NUMBERINGS];
} sm_shape;

void sm_shape_note_unet(sm_shape *s, const char *name, int rank, const int64_t *dims);
void sm_shape_note_vae(sm_shape *s, const char *name);
void sm_shape_relate_unet(sm_shape *s);
void sm_shape_relate_vae(sm_shape *s);

/* One name by one row in either direction: stored to canonical, or (export) canonical to stored. False: the row is not
 * about this name, or the shape has no such number. */
bool sm_alias_read(const sm_alias *a, const sm_shape *s, const char *stored, char *canonical, size_t size);
bool sm_alias_export(const sm_alias *a, const sm_shape *s, const char *canonical, char *stored, size_t size);

/* ---- which layout a file's name is in ---------------------------------------------------------------------------- */

typedef enum sm_name_kind { SM_NAME_UNKNOWN, SM_NAME_IGNORED, SM_NAME_MARK, SM_NAME_TENSOR } sm_name_kind;

/* What a stored name stands for. */
typedef struct sm_name {
    sm_name_kind kind;
    sm_component component;
    const char *rest;           /* the name without its prefix */
    const sm_alias *row;        /* NULL: rest is canonical; SM_THIRD: the first of three */
    sm_alias_how how;
    bool diffusers, original;   /* which layout this is evidence for */
} sm_name;

/* What of a whole file is known before its names are looked at one by one. */
typedef struct sm_layout_context {
    sm_component text;          /* of text encoders under bare names */
    bool controlnet;            /* bare names of UNet blocks are a ControlNet's */
    bool last_unused;           /* SD 2.x: layer 23 of the OpenCLIP encoder is there but nobody asks for it */
    bool version_2;             /* "conditioner.embedders.0.model." is SD 2.x's encoder (SD Turbo), not the refiner's */
    sm_shape shape[SM_COMPONENTS];
} sm_layout_context;

/* What goes on top of models, marked in r; true when name is such a tensor. */
bool sm_layout_addon(const char *name, sm_layout_report *r);
bool sm_layout_mark(const char *name);
/* The component of a name; first step, before shapes are related. */
sm_name sm_layout_place(const sm_layout_context *x, const char *name);
/* Notes a name for the shapes; sm_layout_relate when all are noted. */
void sm_layout_note(sm_layout_context *x, const char *name, int rank, const int64_t *dims);
void sm_layout_relate(sm_layout_context *x);
/* The row; second step. kind may become SM_NAME_UNKNOWN. */
void sm_layout_resolve(const sm_layout_context *x, sm_name *n);

#endif
