"""Command line entry point, shared by ``leapcast``, ``python -m leapcast`` and ``python run.py``."""

import sys
import time

BEGUN = time.monotonic()  # before what takes seconds to import

try:  # torch comes with it, which takes seconds
    from leapcast.models.errors import UserError, one_line
except KeyboardInterrupt:
    print("stopped: nothing was begun", file=sys.stderr)
    sys.exit(130)


@one_line
def main(argv: list[str] | None = None) -> None:
    # imported here because it takes seconds, during which Ctrl-C must be handled by one_line as well
    from leapcast.exp.arguments import ONLY, build_parser, parse
    from leapcast.exp.exp_distill import ExpDistill
    from leapcast.exp.exp_fit import ExpFit
    from leapcast.exp.exp_forecast import ExpForecast
    from leapcast.exp.exp_measure import ExpMeasure
    from leapcast.exp.exp_plan import ExpPlan
    from leapcast.exp.exp_predict import ExpPredict
    from leapcast.exp.exp_pretrain import ExpPretrain, ExpPretrainDraft
    from leapcast.exp.exp_ridge import ExpRidge
    from leapcast.exp.exp_serve import serve
    from leapcast.exp.exp_speculative import ExpSpeculative
    from leapcast.utils.parallel import ddp

    args = parse(argv)
    if ddp.world() > 1 and not (args.is_training or args.task_name == "pretrain"):
        raise UserError("torchrun is for training: run this without it")
    for name, tasks in ONLY.items():
        if vars(args)[name] != build_parser().get_default(name) and args.task_name not in tasks:
            raise UserError(f"--{name} is for --task_name {' and '.join(tasks)}: leave it out")
    if args.backend == "ray" and args.task_name not in ("predict", "serve"):
        raise UserError("--backend ray is for --task_name predict and serve, and for optimize_speculative.py")
    if args.calibrate_plan and args.is_training:
        raise UserError("--calibrate_plan measures trained models: leave out --is_training 1")
    if args.spec_plan and args.task_name == "forecast" and args.spec_adaptive != "stored":
        raise UserError("--spec_plan is read with --spec_adaptive stored: add it")
    if args.task_name == "pretrain":
        (ExpPretrainDraft if args.distill else ExpPretrain)(args).train()
    elif args.task_name == "fit":
        ExpFit(args, BEGUN if argv is None else None).fit()
    elif args.task_name == "measure":
        ExpMeasure(args).measure()
    elif args.task_name == "serve":
        serve(args)
    elif args.calibrate_plan:
        ExpPlan(args).calibrate()
    elif args.task_name == "predict":
        ExpPredict(args).predict()
    elif args.is_training:
        (ExpRidge if args.fit == "ridge" else ExpDistill if args.distill else ExpForecast)(args).train()
    else:
        ExpSpeculative(args).test()


if __name__ == "__main__":
    sys.exit(main())
