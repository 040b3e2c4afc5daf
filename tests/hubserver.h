/* A hub for tests, on two ports of this machine, with plain sockets: the API's listing, files, and faults on request. The model's
 * name says the fault: acme/drop is served by connections that end early (the table is in hubserver.c). The second port plays the
 * storage that the hub redirects to. Contents are made by a formula, so nothing is stored. */
#ifndef HUBSERVER_H
#define HUBSERVER_H

#include <stdio.h>

#include "base/base.h"

typedef struct hubserver hubserver;

#define HUB_TOKEN "hf_tokenForTests"
enum { HUB_ONE_BYTES = 300000 };

/* log: where each request goes as a line, or NULL. */
hubserver *hub_start(FILE *log);
void hub_stop(hubserver *h);
int hub_port(const hubserver *h, int which); /* 0: the hub, 1: its storage */
/* Requests since the start whose line holds the text: "PORT PATH range=N auth=0". */
int hub_count(hubserver *h, const char *text);
/* The byte of a file at offset i; version 1 or 2. */
uint8_t hub_byte(const char *path, int version, size_t i);

#endif
