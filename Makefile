#  breadboard - make help lists the targets

VERSION = 0.1.0
PREFIX  = /usr/local
BUILD   = build
CC      = gcc
OPT     = -O2 -g
SANITIZE =

#  Hardening belongs to every build; _FORTIFY_SOURCE needs optimisation and no sanitizer
HARDEN  = -fstack-protector-strong -fPIE $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
WARN    = -Wall -Wextra -Wconversion -Werror
CFLAGS  = -std=c11 $(OPT) $(WARN) $(HARDEN) -ffunction-sections -fdata-sections \
          $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
PQ_INCLUDE := $(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql)
CPPFLAGS = -D_GNU_SOURCE -DBREADBOARD_VERSION='"$(VERSION)"' -I. -isystem $(PQ_INCLUDE)
LDFLAGS = -pie -Wl,--gc-sections -Wl,-z,relro,-z,now -Wl,--as-needed \
          $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LDLIBS  = -lcivetweb -lczmq -lzmq -lpq -ljansson -linih -lpthread

#  Each folder is a room; main () lives in actors/breadboard.c and tests/selftest.c
ROOMS   = actors http templates config
MAIN    = actors/breadboard.c
SOURCES = $(filter-out $(MAIN),$(foreach room,$(ROOMS),$(wildcard $(room)/*.c)))
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/embedded.o
EVERY_C = $(SOURCES) $(MAIN) $(wildcard tests/*.c)
EVERY_H = $(foreach room,$(ROOMS) tests,$(wildcard $(room)/*.h))
EMBED   = $(sort $(wildcard templates/*.html static/*))

.PHONY: all
all: breadboard breadboard_selftest

#  The two programs lie at the top for the ordinary build, and beside the objects for any other
ifeq ($(BUILD),build)
OUT =
else
OUT = $(BUILD)/
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
