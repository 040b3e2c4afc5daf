# sumi: build, test, demo. `make help` lists the targets.
ifeq ($(origin CC),default)
CC = gcc
endif
BUILD ?= build
PREFIX ?= /usr/local
OPT ?= -O3
WARN = -Wall -Wextra -Wshadow -Wvla -Wno-unused-parameter
# -ffp-contract=off: a multiply-add is fused only where the source says so, so every compiler gives the same bits.
CFLAGS_ALL = -std=gnu11 -D_GNU_SOURCE $(OPT) -g -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC $(WARN) -Iinclude -Isrc -MMD -MP $(EXTRA) $(CFLAGS)
LIBS = -lpng -ljpeg -lwebp -lwebpmux -lwebpdemux -lcjson -lcurl -lcrypto -lz -lpthread -lm
ARCH := $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1)
VERSION := $(shell sed -n 's/^\#define SUMI_VERSION "\(.*\)"/\1/p' include/sumi.h)
SOVERSION = 0

# Two jobs unless the caller said otherwise.
ifeq ($(MAKELEVEL),0)
ifeq ($(findstring j,$(firstword -$(MAKEFLAGS))),)
MAKEFLAGS += -j2
endif
endif

# src/cpu/k_*.c are compiled once per instruction set, everything else once; k_bf16_*.c for AVX-512 with AVX512_BF16 alone.
SRC := $(filter-out src/cli/% src/cpu/k_%,$(wildcard src/*/*.c))
KSRC := $(filter-out src/cpu/k_bf16_%,$(wildcard src/cpu/k_*.c))
ifeq ($(ARCH),x86_64)
ISAS = avx2 avx512
endif
ifeq ($(ARCH),aarch64)
ISAS = neon
endif
FLAGS_avx2 = -mavx2 -mfma -mf16c
FLAGS_avx512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
FLAGS_bf16 = $(FLAGS_avx512) -mavx512bf16
FLAGS_neon =
KOBJ := $(foreach i,$(ISAS),$(KSRC:%.c=$(BUILD)/%.$(i).o))
ifeq ($(ARCH),x86_64)
KOBJ += $(patsubst %.c,$(BUILD)/%.bf16.o,$(wildcard src/cpu/k_bf16_*.c))
endif
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(KOBJ)
CLI := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/cli/*.c))
TEST := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/*.c))
FUZZ := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH := $(patsubst bench/%.c,%,$(wildcard bench/bench_*.c))
SO = libsumi.so.$(VERSION)

all: $(BUILD)/sumi

help:
	@echo 'make               builds $(BUILD)/sumi'
	@echo 'make demo          installs what is missing, builds, draws demo.png     PROMPT="..."'
	@echo 'make test          installs what is missing, builds, runs the whole suite'
	@echo 'make bench         times the kernels beside their checks'
	@echo 'make bigtest       memory of full-size models, weights by a formula        BIG="unet decode"'
	@echo 'make asan          the suite with AddressSanitizer; also ubsan, and tsan for the threaded tests'
	@echo 'make fuzz          libFuzzer on every parser, with clang                TIME=600 seconds each, JOBS=2 at a time, ONLY=fuzz_NAME'
	@echo 'make mutate        breaks the source line by line, the suite must notice'
	@echo 'make lint          the house rules, cppcheck where it is installed'
	@echo 'make install       program, library, header, man page, model            PREFIX=$(PREFIX) DESTDIR='
	@echo 'make man           writes docs/sumi.1 and docs/PARAMETERS.md from the tables'
	@echo 'make clean         removes $(BUILD)'
	@echo 'Variables: CC=$(CC) OPT=$(OPT) BUILD=$(BUILD) EXTRA= CFLAGS='

# ---- library and command --------------------------------------------------------------------------------------------

$(BUILD)/libsumi.a: $(OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/$(SO): $(OBJ)
	$(CC) $(EXTRA) -shared -Wl,-soname,libsumi.so.$(SOVERSION) -Wl,--no-undefined -o $@ $^ $(LIBS)

$(BUILD)/sumi: $(CLI) $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

# Compiled in with .incbin, which the dependency files do not see.
$(BUILD)/src/text/bpe_clip.o: models/clip/bpe_simple_vocab_16e6.txt.gz
$(BUILD)/src/pipeline/label.o: src/pipeline/label_font.bin.gz

define isa_rule
$(BUILD)/%.$(1).o: %.c
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS_ALL) $$(KERNEL_EXTRA) $$(FLAGS_$(1)) -c -o $$@ $$<
endef
$(foreach i,avx2 avx512 bf16 neon,$(eval $(call isa_rule,$(i))))

# Where the installed model lies: a change of PREFIX compiles the room that looks for it again.
$(BUILD)/src/pipeline/%.o: CFLAGS_ALL += -DSUMI_SHARE='"$(PREFIX)/share/sumi"'
$(patsubst %.c,$(BUILD)/%.o,$(wildcard src/pipeline/*.c)): $(BUILD)/prefix
$(BUILD)/prefix: force
	@mkdir -p $(@D)
	@echo '$(PREFIX)' | cmp -s - $@ || echo '$(PREFIX)' > $@

# ---- what people run ------------------------------------------------------------------------------------------------

PROMPT = a red apple, noto style
demo:
	@tools/setup.sh build
	@$(MAKE) --no-print-directory $(BUILD)/sumi
	$(BUILD)/sumi "$(PROMPT)" --seed 1 -o demo.png

test:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory test-build
	@BUILD=$(BUILD) CC="$(CC)" tests/run.sh

bench: $(BENCH:%=$(BUILD)/%)
	@for b in $^; do $$b || exit 1; done

install: $(BUILD)/sumi $(BUILD)/libsumi.a $(BUILD)/$(SO)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/sumi
	install -m 755 $(BUILD)/sumi $(DESTDIR)$(PREFIX)/bin/
	install -m 644 include/sumi.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(BUILD)/libsumi.a $(BUILD)/$(SO) $(DESTDIR)$(PREFIX)/lib/
	ln -sf $(SO) $(DESTDIR)$(PREFIX)/lib/libsumi.so.$(SOVERSION)
	ln -sf libsumi.so.$(SOVERSION) $(DESTDIR)$(PREFIX)/lib/libsumi.so
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@LIBS@|$(LIBS)|' sumi.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/sumi.pc
	install -m 644 docs/sumi.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	@for f in models/*/*.safetensors; do [ ! -f "$$f" ] || install -m 644 "$$f" $(DESTDIR)$(PREFIX)/share/sumi/ || exit 1; done

man: $(BUILD)/sumi
	$(BUILD)/sumi help --man > docs/sumi.1
	$(BUILD)/sumi schema --markdown > docs/PARAMETERS.md

clean:
	rm -rf $(BUILD)

# ---- tests ----------------------------------------------------------------------------------------------------------

test-build: $(BUILD)/sumi $(BUILD)/sumi-test $(BUILD)/hubserver $(BUILD)/hello $(BUILD)/sheet $(BUILD)/$(SO) $(FUZZ:%=$(BUILD)/%)

$(BUILD)/sumi-test: $(TEST) $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

# The hub that the command's tests pull from.
$(BUILD)/hubserver: $(BUILD)/tests/cli/hubserver_main.o $(BUILD)/tests/hubserver.o $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

$(BUILD)/hello $(BUILD)/sheet: $(BUILD)/%: $(BUILD)/examples/%.o $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)

$(BUILD)/bench_%: $(BUILD)/bench/bench_%.o $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS) $(BENCH_LIBS)

# Full-size models with weights by a formula (tests/big/run.sh): memory against the plan. Not part of the suite.
$(BUILD)/bigtest: $(BUILD)/tests/big/bigtest.o $(BUILD)/tests/big/bigmodel.o $(BUILD)/libsumi.a
	$(CC) $(EXTRA) -o $@ $^ $(LIBS)
bigtest: $(BUILD)/bigtest
	@BUILD=$(BUILD) tests/big/run.sh

# The kernel checks alone, without the picture libraries: this is what runs under qemu for another processor.
CORE := $(filter $(BUILD)/src/base/% $(BUILD)/src/graph/% $(BUILD)/src/ops/% $(BUILD)/src/cpu/%,$(OBJ))
CORE_TEST := $(shell tests/core_tests.sh 2>/dev/null)
$(BUILD)/libsumi-core.a: $(CORE)
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/kernel-test: $(CORE_TEST:%.c=$(BUILD)/%.o) $(BUILD)/libsumi-core.a
	$(CC) $(EXTRA) -static -o $@ $^ -lpthread -lm
arm:
	@$(MAKE) --no-print-directory CC=aarch64-linux-gnu-gcc BUILD=$(BUILD)/aarch64 OPT=-O2 $(BUILD)/aarch64/kernel-test

# Sanitizers: FILTER is a part of the tests' names.
SAN_CC ?= $(CC)
SAN = -fno-omit-frame-pointer
# gcc's object-size check takes a choice between two tables for the smaller rest of one; bounds and AddressSanitizer cover it.
UBSAN = -fsanitize=undefined -fno-sanitize=object-size -fno-sanitize-recover=undefined
asan:
	@$(MAKE) --no-print-directory CC="$(SAN_CC)" BUILD=$(BUILD)-asan OPT=-O2 EXTRA="-fsanitize=address $(SAN)" sanitized
ubsan:
	@$(MAKE) --no-print-directory CC="$(SAN_CC)" BUILD=$(BUILD)-ubsan OPT=-O2 EXTRA="$(UBSAN) $(SAN)" sanitized
tsan:
	@$(MAKE) --no-print-directory CC="$(SAN_CC)" BUILD=$(BUILD)-tsan OPT=-O2 EXTRA="-fsanitize=thread $(SAN)" $(BUILD)-tsan/sumi-test
	@BUILD=$(BUILD)-tsan tests/run.sh threads
sanitized: $(BUILD)/sumi-test $(FUZZ:%=$(BUILD)/%)
	@BUILD=$(BUILD) FILTER="$(FILTER)" tests/run.sh unit fuzz

# Kernels see no file: uninstrumented, which spares clang some ten minutes of unrolled loops.
TIME ?= 60
fuzz:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory CC=clang BUILD=$(BUILD)-fuzz OPT=-O1 KERNEL_EXTRA=-fno-sanitize=all EXTRA="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" fuzz-build
	@BUILD=$(BUILD)-fuzz TIME=$(TIME) JOBS=$(JOBS) ONLY="$(ONLY)" tests/fuzz/fuzz.sh
fuzz-build: $(FUZZ:%=$(BUILD)/lf_%)
$(BUILD)/lf_%: $(BUILD)/tests/fuzz/%.o $(BUILD)/libsumi.a
	clang -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIBS)

mutate:
	@tests/mutations/run.sh $(ONLY)

lint:
	@tools/lint.sh
	@tools/lint.sh cppcheck

-include $(OBJ:.o=.d) $(CLI:.o=.d) $(TEST:.o=.d) $(BUILD)/examples/hello.d $(BUILD)/examples/sheet.d $(BUILD)/tests/cli/hubserver_main.d $(wildcard $(BUILD)/bench/*.d $(BUILD)/tests/fuzz/*.d $(BUILD)/tests/big/*.d)
.PHONY: all help demo test bench install man clean test-build arm asan ubsan tsan sanitized fuzz fuzz-build mutate lint bigtest force
.SECONDARY:
