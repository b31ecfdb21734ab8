# Builds smtp for one Lua: make LUA=lua5.4 (also lua5.1 lua5.2 lua5.3 lua5.5 luajit). `make help` lists every target.
LUA ?= lua5.4
PREFIX ?= /usr/local
ifndef LUA_VERSION
LUA_VERSION := $(shell $(LUA) -e 'print((_VERSION:gsub("Lua ", "")))' 2>/dev/null)
endif

# What LUA means is found out before anything is done, but by what needs none or installs it (spec/support/install.sh).
LUAS := lua5.1 lua5.2 lua5.3 lua5.4 lua5.5 luajit
GOALS := $(filter-out clean help rockspec test portable bench-tools build/bench/% lint-luacheck \
	$(if $(filter $(LUAS),$(LUA)),demo bench),$(or $(MAKECMDGOALS),all))
# LuaRocks says where everything is
SAID := $(if $(filter install uninstall,$(GOALS)),$(and $(INST_LUADIR),$(INST_LIBDIR)),$(LUA_INCDIR))
ifeq ($(and $(GOALS),$(if $(LUA_VERSION)$(SAID),,none)),none)
HERE := $(shell for lua in $(LUAS) lua; do command -v $$lua; done 2>/dev/null)
$(error $(LUA) is no Lua that is installed here; $(if $(HERE),LUA=... may be $(notdir $(HERE)),nor is any other: install \
	lua5.4 and liblua5.4-dev (so Debian calls them)))
endif

INST_LUADIR ?= $(PREFIX)/share/lua/$(LUA_VERSION)
INST_LIBDIR ?= $(PREFIX)/lib/lua/$(LUA_VERSION)

# where the headers are: said, or asked of pkg-config
ifdef LUA_INCDIR
LUA_CFLAGS ?= -I$(LUA_INCDIR)
endif
ifndef LUA_CFLAGS
ifneq ($(filter-out env uninstall demo bench reference lint-reference,$(GOALS)),)
JIT := $(filter luajit%,$(notdir $(LUA)))
LUA_PC := $(shell for name in $(if $(JIT),,$(LUA_VERSION:%=lua%) $(LUA_VERSION:%=lua-%)) $(notdir $(LUA)); do \
	pkg-config --exists $$name 2>/dev/null && echo $$name && exit; done)
ifeq ($(LUA_PC),)
HEADERS := $(if $(JIT),libluajit2-5.1-dev,lib$(patsubst lua5.1,lua5.1-0,lua$(LUA_VERSION))-dev)
$(error the headers of $(LUA) are not found: install $(HEADERS) and pkg-config (so Debian calls them), or say \
	LUA_INCDIR=the folder of lua.h)
endif
LUA_CFLAGS := $(shell pkg-config --cflags $(LUA_PC))
endif
endif

# An OpenSSL elsewhere is found at run time as it was when linking; where the system looks by itself nothing is said.
OPENSSL_CFLAGS ?= $(if $(OPENSSL_INCDIR),-I$(OPENSSL_INCDIR))
ifdef OPENSSL_LIBDIR
SYSTEM_LIBDIRS := /lib /usr/lib /lib64 /usr/lib64 $(shell PATH="$$PATH:/sbin:/usr/sbin" ldconfig -v -N -X 2>/dev/null | \
	sed -n 's,^\(/[^:]*\):.*,\1,p')
OPENSSL_LIBS ?= -L$(OPENSSL_LIBDIR) -lssl -lcrypto \
	$(if $(filter $(realpath $(OPENSSL_LIBDIR)),$(realpath $(SYSTEM_LIBDIRS))),,-Wl,-rpath,$(abspath $(OPENSSL_LIBDIR)))
endif
OPENSSL_LIBS ?= -lssl -lcrypto

ifdef SANITIZE
BUILD := build/asan/$(notdir $(LUA))
CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
else
BUILD := build/$(notdir $(LUA))
CFLAGS ?= -O2 -g
endif
ifeq ($(shell uname),Darwin)
LIBFLAG ?= -bundle -undefined dynamic_lookup
else
LIBFLAG ?= -shared
endif
WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
SMTP_CFLAGS = -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread $(WARNINGS) $(LUA_CFLAGS)

CORE := $(wildcard csrc/wire/*.c csrc/net/*.c) $(addprefix csrc/bind/,core.c codec.c draft.c wire.c sock.c net.c)
TLS := $(wildcard csrc/tls/*.c) $(addprefix csrc/wire/,status.c buf.c library.c) $(addprefix csrc/bind/,tls.c sign.c)
MODULES := $(patsubst lua/%,%,$(shell find lua -name '*.lua'))
objects = $(patsubst csrc/%.c,$(BUILD)/obj/%.o,$(1))

all: $(BUILD)/smtp/core.so $(BUILD)/smtp/tls.so ## build for one LUA (the default target)

$(BUILD)/smtp/core.so: $(call objects,$(CORE))
	@mkdir -p $(@D)
	$(CC) $(LIBFLAG) -pthread $(CFLAGS) $(LDFLAGS) -o $@ $^

$(BUILD)/smtp/tls.so: $(call objects,$(TLS)) $(BUILD)/openssl
	@mkdir -p $(@D)
	$(CC) $(LIBFLAG) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(OPENSSL_LIBS)

# what was built with another OpenSSL is built again
$(call objects,$(filter csrc/tls/%,$(TLS))): $(BUILD)/openssl
$(BUILD)/openssl: FORCE
	@mkdir -p $(@D)
	@[ "$$(cat $@ 2>/dev/null)" = '$(OPENSSL_CFLAGS) $(OPENSSL_LIBS)' ] || echo '$(OPENSSL_CFLAGS) $(OPENSSL_LIBS)' >$@

$(BUILD)/obj/%.o: csrc/%.c
	@mkdir -p $(@D)
	$(CC) $(SMTP_CFLAGS) $(OPENSSL_CFLAGS) $(CFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<

-include $(patsubst %.o,%.d,$(call objects,$(CORE) $(TLS)))

# what the specs load into a Lua of theirs
$(BUILD)/spec/%.so: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) $(LIBFLAG) $(SMTP_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

env: ## print the LUA_PATH and LUA_CPATH that run from this checkout: eval "$(make -s env)"
	@echo 'export LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;"'
	@echo 'export LUA_CPATH="$(CURDIR)/$(BUILD)/?.so;;"'

RUN = eval "$$($(MAKE) -s --no-print-directory env)" &&

check: all ## build and run the quick specs under one LUA (SPEC=spec/mail: only those)
	$(RUN) $(LUA) "$$(command -v busted)" --exclude-tags=real $(SPEC)

demo: ## install what is missing, build, and send one message (SMTP_URL, FROM and TO name a server of yours)
	@LUA=$(LUA) bash spec/support/install.sh demo
	@$(MAKE) -s --no-print-directory all
	@$(RUN) $(LUA) examples/demo.lua

test: ## install what is missing, then run every check under every Lua
	@bash spec/support/install.sh test
	@bash spec/support/test.sh

portable: ## make test in minimal systems, as root or by sudo (SUITES="bookworm trixie sid" CHROOTS=build/portable MIRROR=)
	@SUITES="$(SUITES)" CHROOTS="$(CHROOTS)" MIRROR="$(MIRROR)" bash spec/support/portable.sh

# what `make bench` measures with, and libcurl to compare with, where its headers are
TOOLS := $(addprefix build/bench/,sink floor proxy runner)
BENCH_CFLAGS = -std=c11 -D_GNU_SOURCE -O2 $(WARNINGS) $(OPENSSL_CFLAGS)

$(TOOLS): build/bench/%: spec/bench/%.c spec/bench/b64.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -o $@ $< $(OPENSSL_LIBS)

build/bench/curl: spec/bench/clients/curl.c
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -o $@ $< -lcurl

bench-tools: $(TOOLS)
	@$(MAKE) -s --no-print-directory build/bench/curl 2>/dev/null || echo "libcurl's headers are not installed" >&2

bench: ## measure beside others and draw it (ROUNDS=3 ONLY=small,cold CHART=spec/bench/bench.svg)
	@LUA=$(LUA) bash spec/support/install.sh bench
	@$(MAKE) -s --no-print-directory all bench-tools
	@$(RUN) LUA=$(LUA) /usr/bin/python3 spec/bench/bench.py $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(CHART),--chart $(CHART))

LINTS := lint-luacheck lint-warnings lint-tidy lint-format lint-floors lint-reference
lint: $(LINTS) ## the static checks: luacheck, warnings as errors (gcc, clang), clang-tidy, clang-format, floors, reference

lint-luacheck:
	luacheck --quiet --no-color $(wildcard lua spec examples)

# As two compilers see the C code; the standards to come, and systems whose types have other sizes, look at its syntax.
EVERY_C = $(sort $(CORE) $(TLS)) $(wildcard spec/support/*.c spec/bench/*.c spec/bench/clients/*.c)
SYNTAX = $(SMTP_CFLAGS) $(OPENSSL_CFLAGS) -Werror -fsyntax-only
lint-warnings:
	@for cc in gcc clang; do command -v $$cc >/dev/null || continue; \
		$(MAKE) -s --no-print-directory CC=$$cc CFLAGS='-O2 -Werror' BUILD=build/lint/$$cc/$(LUA) && \
		$$cc $(SYNTAX) -std=c2x -pedantic $(EVERY_C) || exit 1; done
	@for cc in 'gcc -m32' 'musl-gcc -idirafter /usr/include'; do \
		cc="$$cc -idirafter /usr/include/$$(gcc -print-multiarch)"; \
		if echo '#include <stdio.h>' | $$cc -fsyntax-only -xc - 2>/dev/null; then $$cc $(SYNTAX) $(EVERY_C) || exit 1; \
		else echo "skipped: no headers for $$cc" >&2; fi; done

# one file a process: in a second one the va_list check sees ghosts
lint-tidy:
	@printf '%s\n' $(sort $(CORE) $(TLS)) | xargs -P2 -n1 sh -c \
		'clang-tidy --quiet --warnings-as-errors="*" "$$@" -- $(SMTP_CFLAGS) $(OPENSSL_CFLAGS) 2>/dev/null' tidy

EVERY_H = $(wildcard csrc/*/*.h spec/bench/*.h)
lint-format:
	@if command -v clang-format >/dev/null; then clang-format --dry-run -Werror $(EVERY_C) $(EVERY_H); \
		else echo 'skipped: no clang-format' >&2; fi

format: ## write all C as lint-format wants it
	clang-format -i $(EVERY_C) $(EVERY_H)

lint-floors: all
	$(LUA) spec/support/floors.lua $(BUILD)

reference: ## write the reference, lua/README.md, and the types for editors, lua/smtp/types.lua
	$(LUA) spec/support/reference.lua lua

# that they say what the sources say; the types as lua-language-server sees them, where there is one
lint-reference:
	@mkdir -p build/reference/smtp
	$(LUA) spec/support/reference.lua build/reference
	@for file in README.md smtp/types.lua; do cmp build/reference/$$file lua/$$file || \
		{ echo "lua/$$file is not what the sources say: make reference" >&2; exit 1; }; done
	@if command -v lua-language-server >/dev/null; then \
		lua-language-server --check build/reference --checklevel=Warning --logpath=build/reference/log; \
		else echo 'skipped: no lua-language-server' >&2; fi

install: all ## copy the modules to PREFIX, under DESTDIR
	@for module in $(MODULES); do \
		install -d "$(DESTDIR)$(INST_LUADIR)/$$(dirname $$module)" && \
		install -m 644 lua/$$module "$(DESTDIR)$(INST_LUADIR)/$$module" || exit 1; done
	install -d "$(DESTDIR)$(INST_LIBDIR)/smtp"
	install -m 755 $(BUILD)/smtp/core.so $(BUILD)/smtp/tls.so "$(DESTDIR)$(INST_LIBDIR)/smtp"

uninstall: ## remove what install copied
	rm -f $(foreach module,$(MODULES),"$(DESTDIR)$(INST_LUADIR)/$(module)")
	rm -f "$(DESTDIR)$(INST_LIBDIR)/smtp/core.so" "$(DESTDIR)$(INST_LIBDIR)/smtp/tls.so"
	-find "$(DESTDIR)$(INST_LUADIR)/smtp" "$(DESTDIR)$(INST_LIBDIR)/smtp" -depth -type d -empty -delete

rockspec: ## write the rockspec of a tagged version into build/: VERSION=1.2.3 (SOURCE_URL=... where origin is not it)
	@echo '$(VERSION)' | grep -Eqx '(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}' || \
		{ echo 'make rockspec VERSION=1.2.3: "$(VERSION)" is no version' >&2; exit 1; }
	@# the address as anybody may fetch from it: without ssh, a name or a password
	@url='$(SOURCE_URL)'; url=$$(echo "$${url:-$$(git remote get-url origin 2>/dev/null)}" | sed -E \
		-e 's,^([^@/:]+@)?([^/:]+):([^/].*),https://\2/\3,' -e 's,^ssh://([^@/]*@)?([^/:]*)(:[0-9]+)?/,https://\2/,' \
		-e 's,^(git\+)?https?://([^@/]*@)?,git+https://,' -e 's,^(file://)?/,git+file:///,'); \
	echo "$$url" | grep -Eqx '(git|git\+[a-z]+)://[A-Za-z0-9:/.~_+%-]+' || \
		{ echo "make rockspec SOURCE_URL=git+https://...: \"$$url\" is no place where everybody finds the source" >&2; exit 1; }; \
	mkdir -p build && sed -e 's,"scm-1","$(VERSION)-1",' -e "s,^  url = .*,  url = \"$$url\"\, tag = \"v$(VERSION)\"\,," \
		smtp-scm-1.rockspec >build/smtp-$(VERSION)-1.rockspec
	@echo build/smtp-$(VERSION)-1.rockspec
	@git rev-parse -q --verify refs/tags/v$(VERSION) >/dev/null || echo 'there is no tag v$(VERSION) yet' >&2

clean: ## remove build/
	rm -rf build

help: ## list the targets and the variables
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  LUA=$(LUA)               the Lua to build for: lua5.1 lua5.2 lua5.3 lua5.4 lua5.5 luajit"
	@echo "  PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)   where install copies to (INST_LUADIR, INST_LIBDIR to be exact)"
	@echo "  CC CFLAGS CPPFLAGS LDFLAGS LIBFLAG   the compiler and its flags; SANITIZE=1 adds ASan and UBSan"
	@echo "  LUA_INCDIR OPENSSL_INCDIR OPENSSL_LIBDIR   headers and libraries, where pkg-config does not know them"

.PHONY: all format env check demo test portable bench bench-tools lint $(LINTS) reference install uninstall rockspec clean help FORCE
.DELETE_ON_ERROR:
