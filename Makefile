# Each target is one line to a Python entry point. The environment, .venv, is built first and reused.
# Without make: README.md, "Plain commands".
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
VENV = .venv/Scripts/python.exe
else
VENV = .venv/bin/python
endif

.DEFAULT_GOAL := help
.PHONY: help environment demo test test-gpu lab student grade autograder pocket regenerate bench

help: ## this list
	@$(PYTHON) -c "import re; [print('make {:<13}{}'.format(t, d)) for t, d in re.findall(r'^([\w-]+):.*?## (.*)', open('Makefile').read(), re.M)]"

environment: ## build or update .venv
	@$(PYTHON) -m course.setup

demo: environment ## images, every lesson and a 3D object on the embedded model; leaves outputs/index.html
	@$(VENV) -m publish.demo

test: environment ## style, types and tests
	@$(VENV) -m tests

test-gpu: environment ## tests that need a GPU; fails without one
	@$(VENV) -m tests.gpu

lab: environment ## open the lessons in JupyterLab
	@$(VENV) -m jupyterlab --ServerApp.kernel_spec_manager_class=course.notebooks.CourseKernels

student: environment ## write the student copy and the teacher's copy to dist/
	@$(VENV) -m grading.release

grade: environment ## grade a class: make grade SUBMISSIONS=folder
	@$(VENV) -m grading.grade "$(SUBMISSIONS)"

autograder: environment ## write the autograder for Gradescope to dist/
	@$(VENV) -m grading.autograder

pocket: environment ## train the embedded model (needs a GPU, about two hours)
	@$(VENV) -m pocket.train all

regenerate: environment ## after new weights: run and store the lessons, update README's images and clips
	@$(VENV) -m publish.regenerate

bench: environment ## measure speed beside diffusers, and draw the plots (needs a GPU)
	@$(VENV) -m benchmarks
