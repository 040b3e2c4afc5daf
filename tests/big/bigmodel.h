/* Models of published shapes with weights by a formula: what large models cost, without any being fetched or stored. */
#ifndef BIGMODEL_H
#define BIGMODEL_H

#include "model/model.h"

typedef struct big_part {
    const char *name;         /* component: its folder, the prefix of its tensors in a table */
    sm_model_kind kind;
    const char *config;       /* config.json as published */
    const char *class_name;   /* in model_index.json */
    const char *library;
} big_part;

typedef struct big_model {
    const char *name, *scheduler; /* scheduler_config.json */
    int parts;
    big_part part[4];
} big_model;

/* "sd15", "sdxl" (the UNet alone); NULL when unknown. */
const big_model *big_model_find(const char *name);
/* Writes dir/model_index.json and a folder for each component, f16. Memory stays small. false after a message on stderr. */
bool big_model_write(const big_model *m, const char *dir);

/* Value i of tensor `name` with fan-in f (the product of all dims but the first; 1 for vectors), before it is rounded to f16:
 * u in [-1, 1) from 24 bits of splitmix64(sm_hash64(name) + i), times sqrt(3 / f) for matrices and kernels, 1 + 0.1 u for the
 * weights of norms (vectors named *.weight), 0.02 u for other vectors. */
float big_value(uint64_t hash, int64_t i, int rank, int64_t fan, bool weight);

#endif
