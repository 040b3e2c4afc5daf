/* Merging of alike tokens before attention and parting them after it (Bolya and Hoffman 2023, "Token Merging for Fast Stable
 * Diffusion"): rules and record functions. What joins what is one op's result, rows as numbers; the others move by it. */
#include "ops/rules.h"

sm_node *sm_token_match(sm_node *x, sm_node *chosen, const sm_cells *c, int64_t merged)
{
    sm_param p = {.tokens = {{c->size[0], c->size[1]}, {c->cell[0], c->cell[1]}, merged}};
    return SM_REC(SM_OP_TOKEN_MATCH, &p, x, chosen);
}

sm_node *sm_token_merge(sm_node *x, sm_node *row, int64_t rows)
{
    return SM_REC(SM_OP_TOKEN_MERGE, &((sm_param){.slice = {1, 0, rows}}), x, row);
}

sm_node *sm_token_part(sm_node *y, sm_node *row) { return SM_REC(SM_OP_TOKEN_PART, NULL, y, row); }

static bool want_ids(sm_node *n)
{
    if (n->src[0]->dtype != SM_F32 || n->src[1]->dtype != SM_I32)
        return sm_node_fail(n, "sources are %s and %s, must be f32 and i32", sm_dtype_name(n->src[0]->dtype),
                            sm_dtype_name(n->src[1]->dtype));
    return true;
}

bool shape_token_match(sm_node *n)
{
    const sm_node *x = n->src[0];
    const int *size = n->p.tokens.size, *cell = n->p.tokens.cell;
    char s[96];
    if (!sm_want_rank(n, 0, 3) || !want_ids(n))
        return false;
    if (size[0] < 1 || size[1] < 1 || cell[0] < 1 || cell[1] < 1 || (int64_t)size[0] * size[1] != x->dims[1] ||
        x->dims[1] > INT32_MAX)
        return sm_node_fail(n, "%s are not %d x %d tokens in cells of %d x %d", sm_dims_str(x, s), size[0],
                            size[1], cell[0], cell[1]);
    int64_t cells = sm_cells_count(&(sm_cells){{size[0], size[1]}, {cell[0], cell[1]}});
    if (cells < 1 || n->p.tokens.merged < 0 || n->p.tokens.merged > x->dims[1] - cells)
        return sm_node_fail(n, "%lld of %s tokens cannot join %lld", (long long)n->p.tokens.merged,
                            sm_dims_str(x, s), (long long)cells);
    if (!sm_want_vector(n, 1, cells))
        return false;
    n->rank = 2;
    n->dims[0] = x->dims[0];
    n->dims[1] = x->dims[1];
    n->dtype = SM_I32;
    return true;
}

static bool rows_fit(sm_node *n, bool tokens)
{
    const sm_node *x = n->src[0], *row = n->src[1];
    char a[96], b[96];
    if (!sm_want_rank(n, 0, 3) || !sm_want_rank(n, 1, 2) || !want_ids(n))
        return false;
    if (row->dims[0] != x->dims[0] || (tokens && row->dims[1] != x->dims[1]))
        return sm_node_fail(n, "rows %s do not fit %s", sm_dims_str(row, a), sm_dims_str(x, b));
    sm_take_shape(n, x);
    return true;
}

bool shape_token_merge(sm_node *n)
{
    int64_t rows = n->p.slice.len;
    if (!rows_fit(n, true))
        return false;
    if (rows < 1)
        return sm_node_fail(n, "to %lld rows", (long long)rows);
    n->dims[1] = rows;
    return true;
}

bool shape_token_part(sm_node *n)
{
    if (!rows_fit(n, false))
        return false;
    n->dims[1] = n->src[1]->dims[1];
    return true;
}

/* Every token that may go against every one that stays. */
sm_cost cost_token_match(const sm_node *n)
{
    const sm_node *x = n->src[0];
    double stay = (double)n->src[1]->dims[0];
    return (sm_cost){2 * (double)x->dims[0] * ((double)x->dims[1] - stay) * stay * (double)x->dims[2], sm_io_bytes(n)};
}
