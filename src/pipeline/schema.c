/* The parameter table as JSON Schema (https://json-schema.org/draft/2020-12) and as the reference page. */
#include <string.h>

#include "io/json.h"
#include "pipeline/params.h"

static void put_member(sm_buf *b, const char *key, const char *text)
{
    sm_buf_fmt(b, ", \"%s\": ", key);
    sm_json_put_text(b, text);
}

static void put_words(const sumi_param_info *p, const char *def, sm_buf *b)
{
    size_t i = 0;
    sm_choice c;
    const char *word;
    if (!sm_choice_at(p, 0, &c))
        return;
    sm_buf_fmt(b, ", \"enum\": [");
    if (!sm_choice_find(p, def, &c)) {
        sm_json_put_text(b, def);
        sm_buf_fmt(b, ", ");
    }
    for (const char *sep = ""; (word = sm_choice_word(p, &i)); sep = ", ") {
        sm_buf_fmt(b, "%s", sep);
        sm_json_put_text(b, word);
    }
    sm_buf_fmt(b, ", null]");
}

/* null is the default, as sumi_request_read takes it. */
static void put_property(const sumi_param_info *p, const sumi_request *d, sm_buf *b)
{
    static const char *const types[] = {"string", "integer", "integer", "number"}; /* by sumi_param_type */
    sm_json_put_text(b, p->name);
    sm_buf_fmt(b, ": {\"type\": [\"%s\"%s, \"null\"]", types[p->type], sm_param_switch(p) ? ", \"boolean\"" : "");
    if (p->type == SUMI_PARAM_TEXT) {
        put_member(b, "default", sm_param_text(p, d));
        put_words(p, sm_param_text(p, d), b);
    } else {
        sm_buf_fmt(b, ", \"default\": ");
        sm_param_put(p, d, b);
        sm_buf_fmt(b, ", \"minimum\": %.17g, \"maximum\": %.17g", p->low, p->high);
    }
    put_member(b, "description", p->help);
    put_member(b, "x-flag", p->flag);
    if (p->a1111[0])
        put_member(b, "x-infotext", p->a1111);
    sm_buf_fmt(b, "}");
}

static void put_schema(sm_buf *b)
{
    size_t n;
    const sumi_param_info *t = sumi_params(&n);
    sumi_request d = sumi_request_default();
    sm_buf_fmt(b,
               "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"title\": \"sumi " SUMI_VERSION " request\",\n"
               "  \"type\": \"object\",\n  \"additionalProperties\": false,\n  \"properties\": {");
    for (size_t i = 0; i < n; i++) {
        sm_buf_fmt(b, "%s\n    ", i ? "," : "");
        put_property(&t[i], &d, b);
    }
    sm_buf_fmt(b, "\n  }\n}\n");
}

/* ---- the page -------------------------------------------------------------------------------------------------------- */

/* In a cell of a table a bar would end the cell. */
static void put_cell(sm_buf *b, const char *text)
{
    for (; *text; text++)
        sm_buf_fmt(b, *text == '|' ? "\\|" : "%c", *text);
}

static void put_range(const sumi_param_info *p, sm_buf *b)
{
    size_t i = 0;
    const char *word;
    if (p->type != SUMI_PARAM_TEXT) {
        sm_buf_fmt(b, "%.10g to %.10g", p->low, p->high);
        return;
    }
    for (const char *sep = ""; (word = sm_choice_word(p, &i)); sep = ", ")
        sm_buf_fmt(b, "%s`%s`", sep, word);
    if (!i)
        sm_buf_fmt(b, "text");
}

static void put_page(sm_buf *b)
{
    size_t n;
    const sumi_param_info *t = sumi_params(&n);
    sumi_request d = sumi_request_default();
    sm_buf_fmt(b,
               "# Parameters\n\nWritten by `make man` from the table `SUMI_PARAMS` in `include/sumi.h`; `sumi schema` prints the "
               "same as JSON Schema. "
               "The field is the name in C and in JSON lines (`--prompts`), the key is what the picture's infotext calls it "
               "(K-1 and K-2 together are written `K: 512x768`).\n\n"
               "| field | flag | values | default | infotext | |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        sm_buf_fmt(b, "| `%s` | `--%s` | ", t[i].name, t[i].flag);
        put_range(&t[i], b);
        sm_buf_fmt(b, " | ");
        sm_param_put(&t[i], &d, b);
        sm_buf_fmt(b, " | %s | ", t[i].a1111);
        put_cell(b, t[i].help);
        sm_buf_fmt(b, " |\n");
    }
}

sumi_status sumi_schema(sumi_context *ctx, int markdown, char **out)
{
    sm_err *e = sm_begin(ctx);
    sm_buf b = {.mem = &ctx->mem};
    (markdown ? put_page : put_schema)(&b);
    *out = b.oom ? NULL : b.data;
    if (b.oom)
        sm_buf_free(&b);
    return *out ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for the table of parameters");
}
