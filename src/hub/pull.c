/* A pull: the settings, then the listing, the choice of files, each of them fetched once and given its name, and at last the ref
 * that makes the snapshot the one the model's name stands for. Until then the older snapshot stays in use, so a pull that ends
 * early, or a branch that moves meanwhile, never leaves a mixture. */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "hub/cache.h"
#include "hub/listing.h"
#include "hub/session.h"

enum { LISTING_BYTES = 32 << 20 };

/* ---- settings ------------------------------------------------------------------------------------------------------ */

/* The token goes into a header: only what tokens are made of. */
static sumi_status take_token(const char *t, sm_hub_settings *s, sm_err *e)
{
    size_t n = t ? strcspn(t, " \t\r\n") : 0; /* a file's last line often comes along */
    if (!n)
        return SUMI_OK;
    for (size_t i = 0; i < n; i++)
        if (t[i] <= 0x20 || t[i] >= 0x7f)
            return sm_fail(e, SUMI_E_ARG, "HF_TOKEN holds characters that no token has");
    if (t[n + strspn(t + n, " \t\r\n")] || n >= sizeof s->token)
        return sm_fail(e, SUMI_E_ARG, "HF_TOKEN is no token: %s", n >= sizeof s->token ? "too long" : "it has several words");
    memcpy(s->token, t, n);
    s->token[n] = 0;
    return SUMI_OK;
}

static sumi_status take_endpoint(const char *p, sm_hub_settings *s, sm_err *e)
{
    sm_origin o;
    size_t n = strlen(p);
    while (n && p[n - 1] == '/')
        n--;
    if (n >= sizeof s->endpoint || (strncmp(p, "https://", 8) && strncmp(p, "http://", 7)) || !sm_origin_of(p, &o) ||
        strpbrk(p, "@?# \t\r\n"))
        return sm_fail(e, SUMI_E_ARG, "HF_ENDPOINT '%.100s' is no hub's address, such as https://huggingface.co",
                       strchr(p, '@') ? "(with a password)" : p);
    memcpy(s->endpoint, p, n);
    s->endpoint[n] = 0;
    return SUMI_OK;
}

static const char *one_of(const char *option, const char *variable)
{
    const char *env = option ? NULL : getenv(variable);
    return option ? option : env && *env ? env : NULL;
}

sumi_status sm_hub_settings_read(const sumi_pull_options *o, sm_hub_settings *s, sm_err *e)
{
    const char *cache = one_of(o ? o->cache : NULL, "SUMI_CACHE");
    const char *xdg = one_of(NULL, "XDG_CACHE_HOME"), *home = one_of(NULL, "HOME");
    const char *endpoint = one_of(o ? o->endpoint : NULL, "HF_ENDPOINT");
    *s = (sm_hub_settings){.insecure_http = o && o->insecure_http, .tries = o && o->tries > 0 ? o->tries : 6, .backoff = 0.5,
                           .stall = 30, .patience = 90, .unsized_limit = (uint64_t)1 << 30};
    int n = cache ? snprintf(s->cache, sizeof s->cache, "%s", cache)
            : xdg ? snprintf(s->cache, sizeof s->cache, "%s/sumi", xdg)
            : home ? snprintf(s->cache, sizeof s->cache, "%s/.cache/sumi", home) : 0;
    if (n <= 0 || (size_t)n >= sizeof s->cache)
        return sm_fail(e, SUMI_E_ARG, n > 0 ? "the cache folder's name is too long" : "no cache folder: set SUMI_CACHE, or HOME");
    while (n > 1 && s->cache[n - 1] == '/')
        s->cache[--n] = 0;
    if (take_endpoint(endpoint ? endpoint : "https://huggingface.co", s, e))
        return e->code;
    return take_token(one_of(o ? o->token : NULL, "HF_TOKEN"), s, e);
}

/* ---- shared by both kinds ------------------------------------------------------------------------------------------ */

typedef struct pull {
    sm_session x;
    const sm_hub_name *name;
    const sumi_pull_options *o;
    char label[SM_HUB_PART * 2 + SM_HUB_REVISION + 8]; /* OWNER/NAME[@REVISION] */
    char whose[SM_HUB_PART * 2];
    bool told; /* that it waits */
    sm_hub_pulled *out;
} pull;

static bool wait_for_lock(void *arg)
{
    pull *p = arg;
    if (!p->told)
        sm_session_show(&p->x, "pull", "another pull is at work on it: waiting for its end");
    p->told = true;
    return sm_session_sleep(&p->x, 0.1);
}

static int lock(pull *p, const char *path, sm_err *e)
{
    int fd = sm_cache_folders(path, e) ? -1 : sm_cache_lock(path, wait_for_lock, p, NULL, e);
    if (fd < 0)
        sm_session_stopped(e); /* unless there was a reason */
    return fd;
}

/* Whether target is there with f's size (where nobody says it, with something in it) and, on --check, digest. */
static sumi_status is_there(pull *p, const sm_fetch *f, bool *there, sm_err *e)
{
    struct stat st;
    *there = !stat(f->target, &st) && S_ISREG(st.st_mode) &&
             (f->sized ? (uint64_t)st.st_size == f->size : st.st_size > 0 || f->want[0]);
    return *there && p->o && p->o->check ? sm_fetch_check(&p->x, f, there, e) : SUMI_OK;
}

/* ---- a model of the hub -------------------------------------------------------------------------------------------- */

/* Appends the text with everything escaped but what may stand in a URL's path. */
static void add_escaped(sm_buf *b, const char *s, bool slash)
{
    for (; *s; s++) {
        bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || strchr("-._~", *s);
        if (plain || (slash && *s == '/'))
            sm_buf_add(b, s, 1);
        else
            sm_buf_fmt(b, "%%%02X", (unsigned char)*s);
    }
}

static sumi_status get_listing(pull *p, sm_listing *l, sm_err *e)
{
    sm_buf url = {.mem = p->x.mem}, text = {.mem = p->x.mem};
    sm_buf_fmt(&url, "%s/api/models/%s/revision/", p->x.s->endpoint, p->whose);
    add_escaped(&url, p->name->revision, false);
    sm_buf_fmt(&url, "?blobs=true");
    if (url.oom)
        sm_fail(e, SUMI_E_MEMORY, "out of memory pulling %s", p->label);
    else if (!sm_fetch_text(&p->x, url.data, p->label, p->whose, LISTING_BYTES, &text, e))
        sm_listing_parse(text.data ? text.data : "", text.len, p->label, p->x.mem, l, e);
    sm_buf_free(&url);
    sm_buf_free(&text);
    return e->code;
}

/* The blob under its digest, fetched unless it is there, then the name in the snapshot. */
static sumi_status pull_file(pull *p, const sm_hub_file *h, const char *repo, const char *commit, sm_err *e)
{
    char blob[SM_HUB_LONG], path[SM_HUB_LONG], label[SM_HUB_PART * 2 + 140];
    bool there;
    snprintf(blob, sizeof blob, "%s/blobs/%s", repo, h->digest);
    snprintf(path, sizeof path, "%s/snapshots/%s/%s", repo, commit, h->path);
    snprintf(label, sizeof label, "%s/%.120s", p->whose, h->path);
    sm_fetch f = {.label = label, .whose = p->whose, .target = path, .sized = true, .size = h->size, .kind = h->kind};
    strcpy(f.want, h->digest);
    if (is_there(p, &f, &there, e) || there) {
        p->x.done += h->size;
        return e->code;
    }
    f.target = blob;
    sm_buf url = {.mem = p->x.mem};
    sm_buf_fmt(&url, "%s/%s/resolve/%s/", p->x.s->endpoint, p->whose, commit);
    add_escaped(&url, h->path, true);
    f.url = url.data;
    if (url.oom)
        sm_fail(e, SUMI_E_MEMORY, "out of memory pulling %s", p->label);
    else if (!is_there(p, &f, &there, e) && there)
        p->x.done += h->size;
    else if (!e->code && !sm_cache_folders(blob, e))
        sm_fetch_file(&p->x, &f, e);
    sm_buf_free(&url);
    return e->code ? e->code : sm_cache_link(blob, path, e);
}

/* The bytes that the disk has yet to take; said before the first is fetched. */
static sumi_status check_room(pull *p, const sm_listing *l, const char *repo, sm_err *e)
{
    char path[SM_HUB_LONG];
    struct stat st;
    uint64_t more = 0;
    for (size_t i = 0; i < l->n; i++) {
        const sm_hub_file *f = &l->at[i];
        uint64_t there = 0;
        for (int k = 0; k < 3 && f->taken; k++) {
            int n = snprintf(path, sizeof path, "%s/", repo);
            if (k == 0)
                snprintf(path + n, sizeof path - (size_t)n, "snapshots/%s/%s", l->commit, f->path);
            else
                snprintf(path + n, sizeof path - (size_t)n, "blobs/%s%s", f->digest, k == 2 ? ".part" : "");
            there = !stat(path, &st) ? SM_MAX(there, (uint64_t)st.st_size) : there;
        }
        more += f->taken ? f->size - SM_MIN(there, f->size) : 0;
    }
    return sm_fetch_room(repo, more, p->label, e);
}

static sumi_status pull_files(pull *p, const sm_listing *l, const char *repo, sm_err *e)
{
    char path[SM_HUB_LONG], marker[SM_HUB_LONG];
    snprintf(marker, sizeof marker, "%s/.unfinished-%s", repo, l->commit);
    if (!p->name->path[0] && sm_file_write(marker, "", 0, e))
        return e->code;
    for (size_t i = 0; i < l->n && !e->code; i++)
        if (l->at[i].taken && !pull_file(p, &l->at[i], repo, l->commit, e))
            p->out->files++;
    snprintf(path, sizeof path, "%s/refs/%s", repo, p->name->revision);
    bool commit = !strcmp(p->name->revision, l->commit), part = p->name->path[0] || (p->o && p->o->include && *p->o->include);
    bool keep = part && !access(path, F_OK); /* the name goes on standing for the whole model that is there */
    if (!e->code && !commit && !keep && !sm_cache_folders(path, e))
        sm_file_write(path, l->commit, strlen(l->commit), e);
    if (!e->code && !p->name->path[0] && unlink(marker) && errno != ENOENT)
        sm_fail(e, SUMI_E_FILE, "cannot remove %s: %s", marker, strerror(errno));
    return e->code;
}

/* What --model takes: the folder, or the file where it is but one. */
static void say_path(pull *p, const sm_listing *l, const char *repo)
{
    const char *one = "";
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].taken && p->out->files == 1)
            one = l->at[i].path;
    snprintf(p->out->path, sizeof p->out->path, "%s/snapshots/%s%s%s", repo, l->commit, *one ? "/" : "", one);
    strcpy(p->out->commit, l->commit);
}

static void list_only(pull *p, const sm_listing *l)
{
    char line[600];
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].taken) {
            snprintf(line, sizeof line, "%12llu  %s", (unsigned long long)l->at[i].size, l->at[i].path);
            sm_session_show(&p->x, "list", line);
            p->out->files++;
        }
}

static sumi_status pull_repo(pull *p, sm_err *e)
{
    const sumi_pull_options *o = p->o;
    char root[SM_HUB_FOLDER], repo[SM_HUB_FOLDER], path[SM_HUB_LONG];
    sm_listing l = {0};
    sm_hub_wish w = {.path = p->name->path};
    if (o) {
        w.variant = o->variant && *o->variant ? o->variant : NULL;
        w.include = o->include;
        w.exclude = o->exclude;
    }
    snprintf(root, sizeof root, "%s/hub", p->x.s->cache);
    if (!sm_cache_repo(root, p->name, repo))
        return sm_fail(e, SUMI_E_ARG, "the cache folder's name is too long");
    snprintf(path, sizeof path, "%s/.lock", repo);
    if (get_listing(p, &l, e) || sm_listing_select(&l, &w, p->label, e)) {
        sm_listing_free(&l);
        return e->code;
    }
    for (size_t i = 0; i < l.n; i++)
        p->out->bytes += l.at[i].taken ? l.at[i].size : 0;
    p->x.total = p->out->bytes;
    if (o && o->list) {
        list_only(p, &l);
    } else {
        int fd = lock(p, path, e);
        if (fd >= 0 && !check_room(p, &l, repo, e) && !pull_files(p, &l, repo, e))
            say_path(p, &l, repo);
        sm_cache_unlock(fd);
    }
    sm_listing_free(&l);
    return e->code;
}

/* ---- a file of any server ------------------------------------------------------------------------------------------ */

static sumi_status pull_address(pull *p, sm_err *e)
{
    char below[SM_HUB_LONG], locked[SM_HUB_LONG + 16], label[SM_HUB_ADDRESS];
    const sumi_pull_options *o = p->o;
    const char *sum = o ? o->sha256 : NULL;
    bool there;
    if (sm_hub_address_path(p->name->address, below, sizeof below, e))
        return e->code;
    snprintf(label, sizeof label, "%.*s", (int)strcspn(p->name->address, "?"), p->name->address); /* queries may hold secrets */
    int n = snprintf(p->out->path, sizeof p->out->path, "%s/%s", p->x.s->cache, below);
    if (n < 0 || n >= (int)sizeof p->out->path - 200)
        return sm_fail(e, SUMI_E_ARG, "the address is too long for a file's name");
    if (o && o->list)
        return sm_fail(e, SUMI_E_ARG, "an address is one file: there is nothing to list");
    sm_fetch f = {.url = p->name->address, .label = label, .target = p->out->path, .kind = SM_DIGEST_SHA256};
    for (size_t i = 0; sum && i < 64 && sum[i]; i++)
        f.want[i] = sum[i] >= 'A' && sum[i] <= 'F' ? (char)(sum[i] + 32) : sum[i];
    snprintf(locked, sizeof locked, "%s.lock", p->out->path);
    int fd = lock(p, locked, e);
    if (fd < 0)
        return e->code;
    if (!is_there(p, &f, &there, e) && there && sum && !sm_fetch_check(&p->x, &f, &there, e) && !there)
        sm_session_show(&p->x, "pull", "the file that is there is another one: fetched anew");
    if (!e->code && !there)
        sm_fetch_file(&p->x, &f, e);
    struct stat st;
    p->out->files = !e->code;
    p->out->bytes = !e->code && !stat(p->out->path, &st) ? (uint64_t)st.st_size : 0;
    strcpy(p->out->sha256, f.want);
    unlink(locked);
    sm_cache_unlock(fd);
    return e->code;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

sumi_status sm_hub_pull(const char *what, const sm_hub_settings *s, const sumi_pull_options *o, const sumi_callbacks *cb,
                        sm_mem *mem,
                        sm_hub_pulled *out, sm_err *e)
{
    sm_hub_name name;
    *out = (sm_hub_pulled){0};
    if (sm_hub_parse(what, s->endpoint, &name, e))
        return e->code;
    bool address = !name.owner[0];
    if (o && o->sha256 && !sm_is_hex(o->sha256, 64))
        return sm_fail(e, SUMI_E_ARG, "--sha256: 64 hexadecimal digits are wanted");
    if (o && o->sha256 && !address)
        return sm_fail(e, SUMI_E_ARG, "--sha256 goes with an address; the hub says itself which digests its files have");
    if (address && o && (o->include || o->exclude || o->variant))
        return sm_fail(e, SUMI_E_ARG, "--variant, --include and --exclude choose from a model's files; an address is one file");
    sm_http_policy policy = {.home = s->endpoint, .token = s->token, .insecure_http = s->insecure_http, .stall = s->stall,
                             .cancel = cb ? cb->cancel : NULL};
    pull p = {.x = {.s = s, .cb = cb, .mem = mem, .begun = sm_now()}, .name = &name, .o = o, .out = out};
    bool named = strcmp(name.revision, "main") != 0;
    snprintf(p.whose, sizeof p.whose, "%s/%s", name.owner, name.name);
    snprintf(p.label, sizeof p.label, "%s%s%s", p.whose, named ? "@" : "", named ? name.revision : "");
    p.x.http = sm_http_new(mem, &policy, e);
    if (p.x.http)
        address ? pull_address(&p, e) : pull_repo(&p, e);
    sm_http_free(p.x.http);
    out->fetched = p.x.moved;
    return e->code;
}
