"""Checks of task 3: score distillation, rendering, and the clips that are handed in."""

from course.checks.task_3_clips import best_object as best_object
from course.checks.task_3_clips import turntables as turntables
from course.checks.task_3_rendering import composite as composite
from course.checks.task_3_rendering import perp_neg as perp_neg
from course.checks.task_3_rendering import pixel_rays as pixel_rays
from course.checks.task_3_rendering import render as render
from course.checks.task_3_rendering import render_weights as render_weights
from course.checks.task_3_rendering import view_weights as view_weights
from course.checks.task_3_sds import descent as descent
from course.checks.task_3_sds import noise_prediction as noise_prediction
from course.checks.task_3_sds import prompt_embedding as prompt_embedding
from course.checks.task_3_sds import sds_step as sds_step
from course.checks.task_3_sds import timesteps as timesteps
from course.checks.task_3_toy import mistakes as mistakes
from course.checks.task_3_toy import mixture_noise as mixture_noise
