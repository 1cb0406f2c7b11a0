# make talk    hold a spoken exchange with the agent (ARGS="..." passes options on, see: make talk ARGS=--help)
# make test    run the tests (the fast half: make test ARGS="-m 'not slow'")
# make test-clients    run those that need other people's client libraries
#
# Both set everything up in $(VENV) first; Python 3.11 or newer is all they need.

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip
# a set-up is done when its stamp is there: one for each content of pyproject.toml
STAMP := $(VENV)/done-$(shell cksum pyproject.toml | cut -d' ' -f1)

.PHONY: talk test test-clients set-up clean portaudio
.DELETE_ON_ERROR:

talk: $(STAMP)-talk portaudio
	$(VENV)/bin/duplex talk $(ARGS)

test: $(STAMP)-test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

test-clients: $(STAMP)-clients
	$(VENV)/bin/python -m pytest --clients $(ARGS)

set-up: $(STAMP)-test

$(STAMP)-talk: | $(VENV)/done-venv
	$(PIP) install --disable-pip-version-check -e .
	@touch $@

$(STAMP)-test: | $(VENV)/done-venv
	$(PIP) install --disable-pip-version-check -e '.[test]'
	@touch $@ $(STAMP)-talk

$(STAMP)-clients: $(STAMP)-test
	$(PIP) install --disable-pip-version-check -e '.[test,test-clients]'
	@# moshi wants an older torch for its models; its client wants none
	$(PIP) install --disable-pip-version-check --no-deps 'moshi>=0.2.13'
	@touch $@

$(VENV)/done-venv:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "duplex needs Python 3.11 or newer, and there is no $(PYTHON); name yours: make PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "duplex needs Python 3.11 or newer, not $$($(PYTHON) -V); name another: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && apt-get install -qy python3-venv; \
	  else echo "Python's venv module is missing; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 2; fi; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# the library behind live sound; without it the recorded questions are played, so its absence is no error
portaudio:
	@$(VENV)/bin/python -c 'import sounddevice' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && apt-get install -qy libportaudio2 || true; \
	  else echo "for live sound PortAudio is missing; on Debian and Ubuntu: sudo apt-get install libportaudio2"; fi; }

clean:
	rm -rf $(VENV)
