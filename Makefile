# sumi: build, test, demo. `make help` lists the targets.
CC ?= gcc
BUILD ?= build
OPT ?= -O3
WARN = -Wall -Wextra -Wshadow -Wvla -Wno-unused-parameter
# -ffp-contract=off: a multiply-add is fused only where the source says so, so every compiler gives the same bits.
CFLAGS_ALL = -std=gnu11 -D_GNU_SOURCE $(OPT) -g -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC $(WARN) -Iinclude -Isrc -MMD -MP $(EXTRA) $(CFLAGS)
LIBS = -lpng -ljpeg -lwebp -lwebpmux -lwebpdemux -lcjson -lz -lpthread -lm
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)

# src/cpu/k_*.c are compiled once per instruction set, everything else once.
SRC := $(filter-out src/cli/% src/cpu/k_%,$(wildcard src/*/*.c))
KSRC := $(wildcard src/cpu/k_*.c)
ifeq ($(ARCH),x86_64)
ISAS = avx2 avx512
endif
ifeq ($(ARCH),aarch64)
ISAS = neon
endif
FLAGS_avx2 = -mavx2 -mfma -mf16c
FLAGS_avx512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
FLAGS_neon =
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(foreach i,$(ISAS),$(KSRC:%.c=$(BUILD)/%.$(i).o))
CLI := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/cli/*.c))
TEST := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/*.c))

all: $(BUILD)/sumi

$(BUILD)/libsumi.a: $(OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/sumi: $(CLI) $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

$(BUILD)/sumi-test: $(TEST) $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

define isa_rule
$(BUILD)/%.$(1).o: %.c
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS_ALL) $$(FLAGS_$(1)) -c -o $$@ $$<
endef
$(foreach i,avx2 avx512 neon,$(eval $(call isa_rule,$(i))))

clean:
	rm -rf $(BUILD)

-include $(OBJ:.o=.d) $(CLI:.o=.d) $(TEST:.o=.d)
.PHONY: all clean
