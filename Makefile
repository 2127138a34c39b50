# httpsrv.h: `make` builds, `make run` serves, `make test` tests, `make help` lists the rest.

CC     = cc
CXX    = c++
CFLAGS = -std=gnu11 -O2 -g
PORT   = 8080
FUZZ_SECONDS ?= 30
BUILD  = build

WARNINGS = -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
SANITIZE = -std=gnu11 -O0 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all

COMPILE  = $(CC) $(CFLAGS) $(WARNINGS) -I. -pthread
C_FILES  = httpsrv.h $(wildcard examples/*.[ch] bench/*.[ch] bench/*/*.[ch] tests/*.[ch] tests/*/*.[ch])
EXAMPLES = $(patsubst examples/%.c,$(BUILD)/%,$(wildcard examples/*.c))
BENCHES  = $(patsubst bench/%.c,$(BUILD)/%,$(wildcard bench/*.c))
TESTS    = $(filter-out $(SKIP:%=$(BUILD)/tests/test_%),$(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c)))
SCRIPTS  = $(wildcard tests/test_*.sh)

# Tests without a second thread, and those that are another one's once more with other macros: nothing for tsan.
UNTHREADED = parser scan fuzz rooms_text rooms_emit rooms_memory rooms_router rooms_timers \
    again_small cases_long server_long file_cases_fallback files_fallback

# Each program is a compilation of its own: as many at a time as there are CPUs.
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

# What the shell scripts of tests/ and bench/ need to know.
export CC CXX CFLAGS WARNINGS BUILD

.PHONY: all run test debug asan asan-clang ubsan tsan compat cross model lint format format-check bench bench-idle bench-parser \
    bench-mixed bench-queue bench-files bench-streams bench-check bench-rooms pgo fuzz gzip interop streams stress size info clean help FORCE

all: $(EXAMPLES) $(BENCHES) ## the examples and the programs of bench/, into build/

run: $(BUILD)/showcase ## serve the tour on port 8080 (PORT=n: another one) until Ctrl-C
	@$(BUILD)/showcase --port $(PORT)

test: $(TESTS) $(EXAMPLES) ## the test-suite; needs a C compiler and make (skips C++ without c++)
	@sh tests/run.sh $(SCRIPTS) $(TESTS)

debug: ## all of it at -O0 with assertions in build/debug, and the test-suite run there
	@$(MAKE) --no-print-directory BUILD=build/debug CFLAGS="-std=gnu11 -O0 -g -DHTTPSRV_DEBUG" all test

asan: ## the test-suite with AddressSanitizer, leaks and UBSan in build/asan
	@$(MAKE) --no-print-directory BUILD=build/asan CFLAGS="$(SANITIZE) -fsanitize=address,undefined" test

asan-clang: ## the same with clang, whose checks of undefined behaviour are not gcc's, and assertions, in build/asan-clang
	@$(MAKE) --no-print-directory BUILD=build/asan-clang CC=clang CXX=clang++ \
	    CFLAGS="$(SANITIZE) -DHTTPSRV_DEBUG -fsanitize=address,undefined" test

ubsan: ## the test-suite with UBSan alone in build/ubsan
	@$(MAKE) --no-print-directory BUILD=build/ubsan CFLAGS="$(SANITIZE) -fsanitize=undefined" test

tsan: ## the C tests that have threads with ThreadSanitizer in build/tsan
	@$(MAKE) --no-print-directory BUILD=build/tsan SCRIPTS= SKIP="$(UNTHREADED)" CFLAGS="$(SANITIZE) -fsanitize=thread" test

compat: ## the header in every dialect without a warning; needs gcc g++ clang (skips what is missing)
	@sh tests/compat.sh

cross: ## aarch64, arm, mips, riscv64 under qemu; needs gcc-*-linux-gnu*, qemu-user (skips what is missing)
	@sh tests/cross.sh

model: ## explore the models of parking, room and wake-up and their broken variants; needs spin
	@sh tests/model.sh

lint: ## the rules of the rooms: calls, names, banners, symbols; needs nm (binutils) and awk
	@sh tests/lint.sh

format: ## lay out all C files anew; needs clang-format
	clang-format -i $(C_FILES)

format-check: ## fail if `make format` would change something; needs clang-format
	clang-format --dry-run -Werror $(C_FILES)

bench: $(BUILD)/showcase $(BENCHES) ## speed beside the ceiling and peers; needs wrk, curl (skips missing peers)
	@bash bench/run.sh

bench-idle: $(BUILD)/showcase $(BENCHES) ## memory of 10,000 idle connections; needs wrk, curl
	@NAME=idle ROWS=idle PEERS="$${PEERS:-none}" bash bench/run.sh

bench-mixed: $(BUILD)/showcase ## whether slow requests hurt quick ones; needs wrk
	@bash bench/mixed.sh

bench-queue: $(BUILD)/queue ## the ring and the pool beside a queue of mutex and condition variable
	@sh bench/queue.sh

bench-streams: $(BUILD)/showcase ## 1 GB down and up, bytes per second of server CPU beside nginx; needs curl, nginx-light
	@bash bench/streams.sh

bench-files: $(BUILD)/showcase $(BENCHES) ## files of 1 KB, 100 KB, 10 MB beside nginx; needs wrk, curl, nginx-light
	@NAME=files ROWS="file-1k file-100k file-10m" PEERS="$${PEERS:-nginx}" bash bench/run.sh

pgo: ## what link-time optimisation and a profile gain, with the programs in build/pgo; needs gcc, wrk
	@bash bench/pgo.sh

bench-check: ## instructions per request against bench/baseline.txt; needs valgrind
	@sh bench/check.sh

bench-rooms: $(BUILD)/showcase $(BUILD)/ceiling ## instructions by room and so on; needs valgrind (skips wrk, strace)
	@bash bench/rooms.sh

bench-parser: ## the parser beside http_parser; needs libhttp-parser-dev, valgrind (skips what is missing)
	@sh bench/parser.sh

gzip: $(BUILD)/tests/gzip ## compression, and decoding of bodies; needs zlib1g-dev (skips curl, python3)
	@sh tests/run.sh $(BUILD)/tests/gzip tests/interop_gzip.sh

interop: $(BUILD)/showcase ## forms of curl, python3, node, chromium; conditions and ranges beside nginx (skips what is missing)
	@bash tests/interop_forms.sh $(BUILD)/showcase
	@bash tests/interop_files.sh

streams: $(BUILD)/showcase $(BUILD)/listeners ## 4 GB both ways and 1,000 readers of events in fixed memory; needs curl
	@bash tests/streams.sh

fuzz: ## libFuzzer on all that is parsed, FUZZ_SECONDS each (30); needs clang, libclang-rt-dev
	@SECONDS=$(FUZZ_SECONDS) sh tests/fuzz/run.sh

stress: ## STRESS_SECONDS (60) of a mixed load, a million deferred requests with clients that leave; under ASan and TSan
	@mkdir -p $(BUILD)
	for program in load stress; do \
	    $(CC) $(SANITIZE) -O1 -fsanitize=address,undefined -I. -pthread tests/$$program.c -o $(BUILD)/$$program-asan && \
	    $(CC) $(SANITIZE) -O1 -fsanitize=thread -I. -pthread tests/$$program.c -o $(BUILD)/$$program-tsan || exit; \
	done
	$(BUILD)/load-asan $${STRESS_SECONDS:-60}
	$(BUILD)/load-tsan $${STRESS_SECONDS:-60}
	$(BUILD)/stress-asan 1000000 600
	$(BUILD)/stress-tsan 100000 600

# What makes the smallest server.
SMALLEST = -DHTTPSRV_API=static -DHTTPSRV_INLINE_ONLY -DHTTPSRV_NO_SHORTCUTS -DHTTPSRV_NO_REGEX

size: ## code size of examples/hello.c at -Os, with everything and at its smallest; needs size (binutils)
	@mkdir -p $(BUILD)
	$(CC) -std=gnu11 -Os -I. -pthread -s examples/hello.c -o $(BUILD)/hello-full
	$(CC) -std=gnu11 -Os -I. -pthread -ffunction-sections -fdata-sections -Wl,--gc-sections $(SMALLEST) -s \
	    examples/hello.c -o $(BUILD)/hello-small
	@for program in full small; do \
	    printf '%-6s .text %s bytes\n' $$program "$$(size -A $(BUILD)/hello-$$program | awk '$$1 == ".text" {print $$2}')"; \
	done

info: ## versions of the tools that are installed
	@for tool in "$(CC)" "$(CXX)" gcc clang make clang-format nm wrk strace; do \
	    printf '%-14s %s\n' "$$tool" "$$($$tool --version 2>/dev/null | grep -m 1 '[0-9]' || echo missing)"; \
	done; \
	printf '%-14s %s\n' nginx "$$(nginx -v 2>&1 | grep '[0-9]\.' || echo missing)"; uname -srm

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
	    printf 'make %-14s%s\n' "$$target" "$$text"; \
	done

# Changes with the compiler and its flags, so that everything is built again.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)/tests
	@echo '$(COMPILE)' | cmp -s - $@ || echo '$(COMPILE)' > $@

$(EXAMPLES): $(BUILD)/%: examples/%.c examples/serve.h httpsrv.h $(BUILD)/flags
	$(COMPILE) -I$(BUILD) $< -o $@

# The files of examples/assets as a table in C. An array cannot be empty, so each has a zero behind its bytes. What gzip
# does not make smaller, or is not there to, goes uncompressed.
ASSETS = $(sort $(wildcard examples/assets/*))
BYTES  = od -An -v -tu1 | sed 's/[0-9][0-9]*/&,/g'

$(BUILD)/assets: $(BUILD)/assets_table.h
$(BUILD)/assets_table.h: $(ASSETS) Makefile
	@mkdir -p $(BUILD)
	@n=0; for file in $(ASSETS); do \
	    n=$$((n + 1)); \
	    echo "static const unsigned char raw_$$n[] = {"; { $(BYTES); } <$$file; echo "0};"; \
	    echo "static const unsigned char zip_$$n[] = {"; gzip -9nc $$file 2>/dev/null | $(BYTES); echo "0};"; \
	done >$@.part
	@n=0; { echo "static const httpsrv_asset assets[] = {"; for file in $(ASSETS); do \
	    n=$$((n + 1)); \
	    echo "    {.path = \"/$${file#examples/assets/}\", .data = raw_$$n, .len = sizeof raw_$$n - 1,"; \
	    echo "     .gzip = sizeof zip_$$n > 1 && sizeof zip_$$n < sizeof raw_$$n ? zip_$$n : NULL,"; \
	    echo "     .gzip_len = sizeof zip_$$n - 1},"; \
	done; echo "    {.path = NULL},"; echo "};"; } >>$@.part
	@mv $@.part $@

$(BENCHES): $(BUILD)/%: bench/%.c httpsrv.h $(wildcard bench/*.h) $(BUILD)/flags
	$(COMPILE) $< -o $@

$(BUILD)/tests/test_again_small: tests/test_again.c
$(BUILD)/tests/test_cases_long: tests/test_cases.c
$(BUILD)/tests/test_server_long: tests/test_server.c
$(BUILD)/tests/test_files_fallback: tests/test_files.c
$(BUILD)/tests/test_file_cases_fallback: tests/test_file_cases.c

# Not one of the tests of `make test`, which needs no library.
$(BUILD)/tests/gzip: tests/gzip.c httpsrv.h $(wildcard tests/*.h) $(BUILD)/flags
	$(COMPILE) -DHTTPSRV_ZLIB $< -o $@ -lz

# Static: what a test does not call is not compiled either. The examples have it all.
$(TESTS): $(BUILD)/tests/%: tests/%.c httpsrv.h $(wildcard tests/*.h tests/fuzz/*.[ch]) $(BUILD)/flags
	$(COMPILE) -DHTTPSRV_API=static $< -o $@
