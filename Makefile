#  breadboard - make help lists the targets

VERSION = 0.1.0
PREFIX  = /usr/local
BUILD   = build
CC      = gcc
OPT     = -O2 -g
SANITIZE =

#  Hardening belongs to every build; _FORTIFY_SOURCE needs optimisation and no sanitizer
HARDEN  = -fstack-protector-strong -fstack-clash-protection -fPIE \
          $(if $(SANITIZE),,-D_FORTIFY_SOURCE=3)
WARN    = -Wall -Wextra -Wconversion -Werror
CFLAGS  = -std=c11 $(OPT) $(WARN) $(HARDEN) -ffunction-sections -fdata-sections \
          $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
PQ_INCLUDE := $(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql)
CPPFLAGS = -D_GNU_SOURCE -DBREADBOARD_VERSION='"$(VERSION)"' -I. -isystem $(PQ_INCLUDE)
LDFLAGS = -pie -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed \
          $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LDLIBS  = -lcivetweb -lczmq -lzmq -lpq -ljansson -linih -lpthread

#  Each folder is a room; main () lives in actors/breadboard.c and tests/selftest.c
ROOMS   = actors http templates config
MAIN    = actors/breadboard.c
SOURCES = $(filter-out $(MAIN),$(foreach room,$(ROOMS),$(wildcard $(room)/*.c)))
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/embedded.o
#  TSan has to be told of libzmq's queues
OBJECTS += $(if $(filter thread,$(SANITIZE)),$(BUILD)/tests/tsan_zmq.o)
$(BUILD)/tests/tsan_zmq.o: CFLAGS += -fno-sanitize=thread
EVERY_C = $(SOURCES) $(MAIN) $(wildcard tests/*.c)
EVERY_H = $(foreach room,$(ROOMS) tests,$(wildcard $(room)/*.h))
EMBED   = $(sort $(wildcard templates/*.html) $(filter-out %.md,$(wildcard static/*)))

.PHONY: all
all: breadboard breadboard_selftest

#  The two programs lie at the top for the ordinary build, and beside the objects for any other
ifeq ($(BUILD),build)
OUT =
RUN = ./
else
OUT = $(BUILD)/
RUN = $(BUILD)/
.PHONY: breadboard breadboard_selftest
breadboard: $(OUT)breadboard
breadboard_selftest: $(OUT)breadboard_selftest
endif

$(OUT)breadboard: $(OBJECTS) $(BUILD)/actors/breadboard.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(OUT)breadboard_selftest: $(OBJECTS) $(BUILD)/tests/selftest.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/embedded.c: scripts/embed $(EMBED)
	@mkdir -p $(@D)
	scripts/embed $(EMBED) > $@.new
	mv $@.new $@

$(BUILD)/embedded.o: $(BUILD)/embedded.c config/embedded.h
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

#  ------------------------------------------------------------------------
#  Checks

.PHONY: check
check: lint all
	$(RUN)breadboard_selftest

#  check-page runs the test of the class page, verbosely
check-%: breadboard_selftest
	$(RUN)breadboard_selftest --verbose --test $*

.PHONY: format
format:
	@scripts/need clang-format
	clang-format -i $(EVERY_C) $(EVERY_H)

.PHONY: lint
lint: $(BUILD)/embedded.c
	@scripts/need clang-format clang-tidy cppcheck
	clang-format --dry-run --Werror $(EVERY_C) $(EVERY_H)
	! LC_ALL=C.UTF-8 grep -nE '.{101}' $(EVERY_C) $(EVERY_H)
	cppcheck --quiet --std=c11 '-DCHECK_PRINTF(n)=' --error-exitcode=1 --inline-suppr -j 2 -I. \
	    --enable=warning,performance,portability --suppressions-list=.cppcheck $(SOURCES) $(MAIN)
	printf '%s\n' $(SOURCES) $(MAIN) | xargs -P 2 -I FILE clang-tidy --quiet \
	    --warnings-as-errors='*' FILE -- $(CPPFLAGS) -std=c11

.PHONY: memcheck
memcheck: all
	@scripts/need valgrind
	for class in $$($(RUN)breadboard_selftest --list); do \
	    valgrind --quiet --error-exitcode=1 --leak-check=full \
	        --suppressions=tests/valgrind.supp \
	        $(RUN)breadboard_selftest --test $$class || exit 1; \
	done

#  A program of its own, as it puts functions of its own in place of malloc (3) and others
$(BUILD)/failing: $(OBJECTS) $(BUILD)/tests/failing.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PHONY: failing
failing: $(BUILD)/failing
	$(BUILD)/failing

#  Seconds for each fuzz target. What it learns is kept in build/fuzz/corpus, what it finds in build/fuzz
FUZZ_SECONDS = 60
FUZZERS = $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))
FUZZ    = BUILD=$(BUILD)/fuzz CC=clang WARN= OPT='-O1 -g' \
          SANITIZE=fuzzer-no-link,address,undefined

.PHONY: fuzz $(FUZZERS)
fuzz: $(FUZZERS)

$(FUZZERS):
	@scripts/need clang libclang-rt-dev
	$(MAKE) $(FUZZ) $(BUILD)/fuzz/$@.bin
	@mkdir -p $(BUILD)/fuzz/corpus/$@
	$(BUILD)/fuzz/$@.bin \
	    -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -timeout=300 \
	    -artifact_prefix=$(BUILD)/fuzz/$@- -dict=tests/seeds/$@.dict \
	    $(BUILD)/fuzz/corpus/$@ tests/seeds/$@

$(BUILD)/%.bin: $(OBJECTS) $(BUILD)/tests/%.o
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

#  The same targets with a main () that gives them files, for any compiler: what was found stays found
$(BUILD)/fuzz_%: $(OBJECTS) $(BUILD)/tests/fuzz_%.o $(BUILD)/tests/replay.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

#  How much of the code the seeds and build/fuzz/corpus reach, file by file
COVERAGE = BUILD=$(BUILD)/coverage WARN= OPT='-O1 -g' \
           CC='clang -fprofile-instr-generate -fcoverage-mapping'

.PHONY: fuzz-coverage
fuzz-coverage:
	@scripts/need clang libclang-rt-dev llvm
	$(MAKE) $(COVERAGE) $(FUZZERS:%=$(BUILD)/coverage/%)
	rm -f $(BUILD)/coverage/*.profraw
	for target in $(FUZZERS); do \
	    mkdir -p $(BUILD)/fuzz/corpus/$$target; \
	    LLVM_PROFILE_FILE=$(BUILD)/coverage/$$target.profraw $(BUILD)/coverage/$$target \
	        tests/seeds/$$target $(BUILD)/fuzz/corpus/$$target | tail -n 1 || exit 1; \
	done
	llvm-profdata merge -o $(BUILD)/coverage/all.profdata $(BUILD)/coverage/*.profraw
	llvm-cov show $(firstword $(FUZZERS:%=$(BUILD)/coverage/%)) \
	    $(FUZZERS:%=-object=$(BUILD)/coverage/%) \
	    -instr-profile=$(BUILD)/coverage/all.profdata $(FUZZED) | \
	    awk -v root='$(CURDIR)' -f tests/covered.awk | sort

#  What the targets are for
FUZZED = http/frame.c http/reassembly.c http/utf8.c actors/command.c actors/uuid.c http/form.c \
         http/request.c templates/mustache.c config/settings.c

#  The whole suite under sanitizers: class tests, then the real binary. TESTS chooses files
TESTS = tests
ASAN  = BUILD=$(BUILD)/asan OPT='-O1 -g' SANITIZE=address,undefined
TSAN  = BUILD=$(BUILD)/tsan OPT='-O1 -g' SANITIZE=thread
export ASAN_OPTIONS = detect_leaks=1:abort_on_error=1
export UBSAN_OPTIONS = halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS = suppressions=$(CURDIR)/tests/tsan.supp:history_size=7:second_deadlock_stack=1

.PHONY: sanitized asan-suite tsan-suite
sanitized:
	$(MAKE) $(ASAN) all $(FUZZERS:%=$(BUILD)/asan/%)
	$(MAKE) $(TSAN) all

asan-suite: sanitized
	$(BUILD)/asan/breadboard_selftest
	BREADBOARD=$(BUILD)/asan/breadboard /usr/bin/python3 -m pytest -q --tb=short $(TESTS)

tsan-suite: sanitized
	$(BUILD)/tsan/breadboard_selftest
	BREADBOARD=$(BUILD)/tsan/breadboard /usr/bin/python3 -m pytest -q --tb=short $(TESTS)

#  Histories that nobody has played before, against the model in tests/test_histories.py
HISTORIES = 1000

.PHONY: histories
histories: breadboard
	HISTORIES=$(HISTORIES) BREADBOARD=$(OUT)breadboard \
	    /usr/bin/python3 -m pytest -q --tb=short tests/test_histories.py

#  One long history of writes by anybody, in any way, and page numbers against SQL, at about ten operations a
#  second; it tells its seed, and SEED=N plays it again
OPERATIONS = 10000
SEED =

.PHONY: index-histories
index-histories: breadboard
	OPERATIONS=$(OPERATIONS) SEED=$(SEED) BREADBOARD=$(OUT)breadboard \
	    /usr/bin/python3 -m pytest -q -s --tb=short tests/test_index.py

#  Timed runs: they print figures beside their limits, and decide nothing. BENCH='--quick fanout writes'
#  passes options and chooses; the figures are also in build/bench.json
BENCH =
BENCHES = $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/bench_*.c))

.PHONY: bench
bench: breadboard $(BENCHES)
	@scripts/need postgresql python3-psycopg2 python3-websockets
	BREADBOARD=$(OUT)breadboard BENCH_BUILD=$(BUILD) /usr/bin/python3 tests/bench.py $(BENCH)

#  Page turns on boards of these sizes; the largest takes most of an hour. Also in build/turns.json
ROWS = 1000 10000 100000 1000000 10000000

.PHONY: turns
turns: breadboard
	@scripts/need postgresql python3-psycopg2 python3-websockets
	BREADBOARD=$(OUT)breadboard BENCH_BUILD=$(BUILD) /usr/bin/python3 tests/bench_turns.py $(ROWS)

#  Not linked with the product; of the libraries only libpq, and only where it is used
$(BUILD)/bench_%: tests/bench_%.c tests/bench_wire.h Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< -lpq

#  Long campaigns; each ends with a table, and with an error when something acknowledged is lost
BOARD    = 200
POSTGRES = 50
MINUTES  = 15
SECONDS  = 30

.PHONY: kills
kills: breadboard
	@scripts/need postgresql python3-psycopg2 python3-websockets
	BREADBOARD=$(OUT)breadboard /usr/bin/python3 tests/kills.py --board $(BOARD) --postgres $(POSTGRES)

.PHONY: locks
locks: breadboard
	@scripts/need postgresql python3-psycopg2 python3-websockets
	BREADBOARD=$(OUT)breadboard /usr/bin/python3 tests/locks.py --seconds $(SECONDS)

.PHONY: soak
soak: breadboard
	@scripts/need postgresql python3-psycopg2 python3-websockets
	BREADBOARD=$(OUT)breadboard /usr/bin/python3 tests/soak.py --minutes $(MINUTES)

.PHONY: screenshots
screenshots: breadboard
	@scripts/need chromium chromium-driver python3-selenium
	/usr/bin/python3 tests/screenshots.py $(BUILD)/screenshots

#  Runs of a minute each: somebody types while all else changes, and may not lose a character
RUNS = 20

.PHONY: keystrokes
keystrokes: breadboard
	@scripts/need chromium chromium-driver postgresql python3-psycopg2 python3-selenium python3-websockets
	/usr/bin/python3 tests/keystrokes.py $(RUNS)

#  ------------------------------------------------------------------------
#  Installing

.PHONY: install
install: breadboard
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/doc/breadboard
	install -m 755 $(OUT)breadboard $(DESTDIR)$(PREFIX)/bin/breadboard
	install -m 644 README.md config/breadboard.ini $(DESTDIR)$(PREFIX)/share/doc/breadboard

.PHONY: clean
clean:
	rm -rf build breadboard breadboard_selftest

.PHONY: help
help:
	@echo 'make                 builds ./breadboard and ./breadboard_selftest'
	@echo 'make check           format, linters, build, class tests'
	@echo 'make check-CLASS     the test of one class, verbosely'
	@echo 'make format          lays out all C'
	@echo 'make lint            clang-format (looks only), cppcheck, clang-tidy'
	@echo 'make memcheck        class tests under valgrind'
	@echo 'make fuzz            each fuzz target, FUZZ_SECONDS=60'
	@echo 'make fuzz-coverage   what the fuzz targets reach'
	@echo 'make histories       random histories against a model, HISTORIES=1000'
	@echo 'make index-histories page numbers against SQL, OPERATIONS=10000 of anybody'
	@echo 'make asan-suite      all tests under ASan, UBSan and LeakSanitizer, TESTS=tests'
	@echo 'make tsan-suite      all tests under ThreadSanitizer, TESTS=tests'
	@echo 'make bench           figures beside their limits, in minutes; BENCH=--list tells what there is'
	@echo 'make turns           page turns on boards of ROWS="1000 ... 10000000" messages'
	@echo 'make failing         allocations that fail, one by one'
	@echo 'make kills           kills under load, BOARD=200 POSTGRES=50 times, and what was lost'
	@echo 'make locks           a message locked for SECONDS=30, and who notices'
	@echo 'make soak            MINUTES=15 at work: memory, descriptors'
	@echo 'make screenshots     the page in its states, into build/screenshots'
	@echo 'make keystrokes      types while all else changes, RUNS=20 of a minute'
	@echo 'make install         DESTDIR= PREFIX=/usr/local'
	@echo 'make clean           removes what was built'
	@echo 'scripts/test         installs what the tests need, and runs them all'
