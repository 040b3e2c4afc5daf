/* Contact sheets (see sheet.h). */
#include "pipeline/sheet.h"

#include <string.h>

enum { GAP = 4 };

void sm_pixels_from_float(const float *x, int64_t n, uint8_t *rgb)
{
    for (int64_t i = 0; i < n; i++) {
        float v = (x[i] + 1) * 127.5f + 0.5f;
        rgb[i] = (uint8_t)(v >= 255 ? 255 : v >= 0 ? (int)v : 0);
    }
}

sumi_status sm_sheet_make(const uint8_t *rgb, int count, int w, int h, int columns, sm_mem *mem, uint8_t **sheet,
                          int *width, int *height, sm_err *e)
{
    columns = SM_MAX(1, SM_MIN(columns, count));
    int rows = (count + columns - 1) / columns;
    *width = columns * (w + GAP) + GAP;
    *height = rows * (h + GAP) + GAP;
    size_t stride = (size_t)*width * 3;
    *sheet = sm_alloc(mem, SM_MEM_DATA, stride * (size_t)*height);
    if (!*sheet)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a sheet of %d pictures", count);
    memset(*sheet, 255, stride * (size_t)*height);
    for (int k = 0; k < count; k++) {
        uint8_t *at = *sheet + (size_t)(GAP + k / columns * (h + GAP)) * stride + (size_t)(GAP + k % columns * (w + GAP)) * 3;
        for (int y = 0; y < h; y++)
            memcpy(at + (size_t)y * stride, rgb + ((size_t)k * (size_t)h + (size_t)y) * (size_t)w * 3, (size_t)w * 3);
    }
    return SUMI_OK;
}
