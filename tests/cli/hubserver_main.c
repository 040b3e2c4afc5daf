/* The test hub as a program, for the shell tests: `hubserver LOG` prints its two ports and serves until it is killed. */
#include <unistd.h>

#include "../hubserver.h"

int main(int argc, char **argv)
{
    FILE *log = argc > 1 ? fopen(argv[1], "a") : NULL;
    hubserver *h = hub_start(log);
    printf("%d %d\n", hub_port(h, 0), hub_port(h, 1));
    fflush(stdout);
    for (;;)
        pause();
}
