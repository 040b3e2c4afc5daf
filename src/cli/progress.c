/* Progress on stderr: a bar with the time left where somebody looks at a terminal, now and then a plain line otherwise.
 * Also the signals that stop a run: the first asks the library to stop, the second ends the program. */
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

static int stop_signal; /* read by the library between operations */

static void on_signal(int number) { __atomic_store_n(&stop_signal, number, __ATOMIC_RELAXED); }

int cli_stopped(void) { return __atomic_load_n(&stop_signal, __ATOMIC_RELAXED); }

/* "8 s", "3 min 10 s", "2 h 05 min" */
static void time_text(double s, char *out, size_t size)
{
    long n = s < 1e9 ? lround(s) : 0;
    if (s < 9.95)
        snprintf(out, size, "%.1f s", s);
    else if (n < 60)
        snprintf(out, size, "%ld s", n);
    else if (n < 3600)
        snprintf(out, size, "%ld min %02ld s", n / 60, n % 60);
    else
        snprintf(out, size, "%ld h %02ld min", n / 3600, n % 3600 / 60);
}

/* "1.2 GB/4.3 GB, 35.1 MB/s", "1.2 GB" where the whole is not known */
static int describe_bytes(const sumi_progress *p, char *out, size_t size)
{
    int n = snprintf(out, size, "%s", cli_amount((double)p->step, 1000, "B"));
    if (p->steps > 0)
        n += snprintf(out + n, size - (size_t)n, "/%s", cli_amount((double)p->steps, 1000, "B"));
    if (p->rate > 0)
        n += snprintf(out + n, size - (size_t)n, ", %s/s", cli_amount(p->rate, 1000, "B"));
    return n;
}

/* "10/20, loss 0.1234, 33.1 pictures/s, 3.1 s, 2.9 s left"; "10" where nobody knows how many */
static void describe(const sumi_progress *p, char *out, size_t size)
{
    char spent[32], left[32];
    bool bytes = p->unit && p->unit[0] == 'B';
    time_text(p->seconds, spent, sizeof spent);
    time_text(p->eta, left, sizeof left);
    int n = bytes          ? describe_bytes(p, out, size)
            : p->steps > 0 ? snprintf(out, size, "%lld/%lld", (long long)p->step, (long long)p->steps)
                           : snprintf(out, size, "%lld", (long long)p->step);
    if (p->loss != 0)
        n += snprintf(out + n, size - (size_t)n, ", loss %.4g", p->loss);
    if (p->rate != 0 && !bytes)
        n += snprintf(out + n, size - (size_t)n, ", %.1f pictures/s", p->rate);
    n += snprintf(out + n, size - (size_t)n, ", %s", spent);
    if (p->eta >= 0)
        snprintf(out + n, size - (size_t)n, ", %s left", left);
}

static int columns(void)
{
    struct winsize w;
    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col ? w.ws_col : 80;
}

static void draw_bar(cli_progress *c, const sumi_progress *p, const char *text)
{
    char bar[64];
    int width = columns() - 12 - (int)strlen(text);
    width = width < 8 ? 0 : width > 40 ? 40 : width;
    double part = p->steps > 0 ? (double)p->step / (double)p->steps : 0;
    int full = (int)(part * width);
    for (int i = 0; i < width; i++)
        bar[i] = i < full ? '#' : '.';
    fprintf(stderr, "\r%-8s %.*s %.*s\033[K", p->stage, width, bar, columns() - 10 - width > 0 ? columns() - 10 - width : 0,
            text);
    fflush(stderr);
    c->drawn = true;
}

static void show(void *user, const sumi_progress *p)
{
    cli_progress *c = user;
    char text[256];
    const char *stage = p->stage ? p->stage : "";
    bool fresh = strncmp(c->stage, stage, sizeof c->stage - 1) != 0;
    if (c->quiet)
        return;
    if (p->message) {
        cli_progress_end(c);
        fprintf(stderr, "%s\n", p->message);
    }
    if (!fresh && p->seconds - c->last < (c->terminal ? 0.1 : c->every) && !(c->terminal && p->step == p->steps))
        return;
    c->last = p->seconds;
    snprintf(c->stage, sizeof c->stage, "%s", stage);
    describe(p, text, sizeof text);
    if (c->terminal)
        draw_bar(c, p, text);
    else
        fprintf(stderr, "%s %s\n", stage, text);
}

sumi_callbacks cli_progress_start(cli_progress *p, bool quiet, double every)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    *p = (cli_progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO), .every = every};
    return (sumi_callbacks){.progress = show, .cancel = &stop_signal, .user = p};
}

void cli_progress_end(cli_progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}
