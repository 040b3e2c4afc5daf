/* Lists of pictures as the public calls hand them out. */
#ifndef SM_IMAGES_H
#define SM_IMAGES_H

#include "base/base.h"

sumi_images *sm_images_new(sm_mem *mem, size_t n); /* all empty; NULL: out of memory */
sumi_image *sm_images_put(sumi_images *im, size_t i); /* the i-th, to be filled; its pixels and infotext are released with the
                                                         list */
/* Releases the list, but not its pictures. */
void sm_images_release(sumi_images *im);

#endif
