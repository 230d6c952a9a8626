"""The registry: ``--model`` or ``--spec_draft_model`` name -> module with ``Config`` and ``Model``."""

from models import dlinear, multi_patch, seasonal_naive, timer_hf, timer_xl, timer_xl_draft, ttm

MODELS = {
    "timer_xl": timer_xl,
    "timer_hf": timer_hf,
    "timer_xl_draft": timer_xl_draft,
    "multi_patch": multi_patch,
    "ttm": ttm,
    "dlinear": dlinear,
    "seasonal_naive": seasonal_naive,
}
