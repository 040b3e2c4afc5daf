/* Tiny checkpoints of every family, made anew from names, shapes and a formula (tests/fixtures/families.txt.gz, written by
 * tools/fixtures/make_families.py, which says what the lines are): as diffusers' folder and as a single file of other
 * programs. */
#ifndef FAMILIES_H
#define FAMILIES_H

#include <stdbool.h>

/* UNET: a single file without the rest. */
typedef enum family_form { FAMILY_FOLDER, FAMILY_FILE, FAMILY_UNET, FAMILY_FORMS } family_form;

/* Path of the checkpoint in a temporary folder, written when first asked for; "" and a failed check where it cannot be. */
const char *family_model(const char *name, family_form form);
/* Writes it to a path of one's own; without a name the folder gets what all share, tokenizer/. */
bool family_write(const char *name, family_form form, const char *path);
/* Folder of the tokenizer of all of them: vocab.json, merges.txt. */
const char *family_tokenizer(void);

#endif
