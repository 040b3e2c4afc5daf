/* Hires fix (A1111): a first pass at the request's size, its result enlarged as latents or as a picture, a second pass over it
 * from the noise level that strength says. */
#ifndef SM_PIPELINE_HIRES_H
#define SM_PIPELINE_HIRES_H

#include "pipeline/encode.h"
#include "pipeline/pass.h"

/* Whether the request wants it. */
bool sm_hires_wanted(const sumi_request *r);
/* Names and sizes; fills strength, out_width and out_height, multiples of as many pixels. */
sumi_status sm_hires_open(sm_job *j, int multiple, sm_err *e);
/* What the second pass takes of its schedule: as many steps as were asked for, whatever the strength. */
sumi_status sm_hires_stretch(const sm_job *j, sm_stretch *out, sm_err *e);
/* from's latents of n pictures become to's init: the whole, or with both hires_width and hires_height the middle of that
 * shape. */
sumi_status sm_hires_enlarge(sm_pass *from, sm_pass *to, int first, int n, sm_err *e);
bool sm_hires_pixels(const sumi_request *r); /* enlarges pictures: they are decoded and encoded again */
/* Bytes that enlarging n pictures takes beside decoder and encoder. */
size_t sm_hires_bytes(const sm_pass *from, const sm_pass *to, int n);
#endif
