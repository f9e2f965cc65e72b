# Everything a newcomer needs is `make demo` and `make test`; both set up what they need.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV   := .venv/bin
BPF    := build/bpf
CLANG  ?= clang-16
SRCS   := $(wildcard services/*/bpf/*.bpf.c)
OBJS   := $(foreach kind,bpf trace,$(patsubst %.bpf.c,$(BPF)/%.$(kind).o,$(notdir $(SRCS))))
CFLAGS := -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations \
          -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Ishared/bpf -I$(BPF)
CFILES := $(wildcard shared/bpf/*.h services/*/bpf/*.[ch] tests/packets/*/*.[ch])
export PATH := $(PATH):/usr/sbin
unexport PYTHONDONTWRITEBYTECODE  # hundreds of processes would compile the same modules again
export ACHELOUS_BPF_DIR := $(CURDIR)/$(BPF)

vpath %.bpf.c $(sort $(dir $(SRCS)))

.PHONY: help setup demo up test nightly fuzz lint format bench bpf openapi clean

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: ## install what is missing, compile the eBPF programs
	@scripts/setup

demo: setup ## the whole platform on this machine, a tour with measured figures, cleaned up
	@$(VENV)/achelous demo

up: setup ## the same platform, left running until Ctrl-C
	@$(VENV)/achelous up $(ARGS)

# All of them wait as much as they work: two files side by side, in the order of their names, the
# short ones last. What is asked for by ARGS runs in one process, which starts sooner.
test: setup ## all tests
	@$(VENV)/pytest $(or $(ARGS),-n 2 --dist loadfile --no-loadscope-reorder)

nightly: setup ## what no run before had: 10,000 orders of events at a cache, 100,000 frames of the model
	@ACHELOUS_ORDERS=10000 $(VENV)/pytest tests/unit/vswitch/test_delta.py --timeout 1800
	@ACHELOUS_MODEL_CASES=100000 ACHELOUS_MODEL_SEED=$$(date +%s) $(VENV)/pytest tests/packets/test_model.py $(ARGS)
	@cat build/model.json

fuzz: setup ## RSP and the packet path for 60 s each; what is worth keeping goes to tests/fuzz/corpus
	@PYTHONPATH=tests $(VENV)/python -m fuzz.fuzz_rsp tests/fuzz/corpus/rsp -max_total_time=60 \
	  -max_len=512 -artifact_prefix=build/ $(ARGS)
	@PYTHONPATH=tests $(VENV)/python -m fuzz.fuzz_packets tests/fuzz/corpus/packets \
	  -max_total_time=60 -max_len=2048 -artifact_prefix=build/ $(ARGS)

bench: setup ## side-by-side ratios, never absolute times; figures in build/bench/datapath.json
	@PYTHONPATH=tests $(VENV)/python -m scale.measure_datapath $(ARGS)

lint: setup ## ruff, mypy --strict, import-linter, clang-format
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports
	@clang-format-16 --dry-run --Werror $(CFILES)

format: setup ## rewrite the sources as lint wants them
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .
	@clang-format-16 -i $(CFILES)

openapi: setup ## write docs/openapi.json from the app
	@$(VENV)/python -m achelous_controller openapi > docs/openapi.json

bpf: $(OBJS)

$(BPF)/vmlinux.h:
	@mkdir -p $(@D)
	@bpftool btf dump file /sys/kernel/btf/vmlinux format c > $@

$(BPF)/%.bpf.o: %.bpf.c $(BPF)/vmlinux.h $(wildcard shared/bpf/*.h services/*/bpf/*.h)
	@$(CLANG) $(CFLAGS) -c $< -o $@

# The same programs, which also tell what they look up: `achelous trace` runs them.
$(BPF)/%.trace.o: %.bpf.c $(BPF)/vmlinux.h $(wildcard shared/bpf/*.h services/*/bpf/*.h)
	@$(CLANG) $(CFLAGS) -DACH_TRACE -c $< -o $@

clean: ## remove everything that was built
	rm -rf build .venv
