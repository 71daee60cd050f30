"""A watched model is, to all other code, the model that it was: nothing sees the watch."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
from watching import net, observed, sgd, update

from sm_tblog import Writer

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.rest = nn.Linear(6, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        return self.rest(self.first(x)).sin()


X = torch.ones(3, 6)


def scripted(model):
    return torch.jit.script(model)(X)


def scripted_copy(model):
    return torch.jit.script(copy.deepcopy(model))(X)


def scripted_part(model):
    return torch.jit.script(next(model.children()))(X)


def scripted_average(model):
    averaged = torch.optim.swa_utils.AveragedModel(model)
    return torch.jit.script(averaged.module)(X)


def traced(model):
    module = torch.jit.trace(model, X)
    return [str(module.inlined_graph).count("aten::"), module(X)]


def symbolic(model):
    module = torch.fx.symbolic_trace(model)
    return [module.code, module(X)]


def made_graph(model):
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(model)(X).graph
    differentiated = make_fx(lambda x: torch.autograd.grad(model(x).sum(), [*model.parameters()]))
    return [len(graph.nodes), len(differentiated(X).graph.nodes)]


def made_graphs_of_fakes(model):
    from torch.fx.experimental.proxy_tensor import make_fx

    return [
        len(make_fx(model, tracing_mode="fake", _allow_non_fake_inputs=True)(X).graph.nodes),
        len(make_fx(model, pre_dispatch=True)(X).graph.nodes),
    ]


def exported(model):
    return [
        len(torch.export.export(model, (X,), strict=strict).graph.nodes) for strict in (False, True)
    ]


def quantized(model):
    from torch.ao import quantization
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

    model.train()
    mapping = quantization.get_default_qat_qconfig_mapping()
    prepared = prepare_qat_fx(copy.deepcopy(model), mapping, (X,))
    prepared = prepare_qat_fx(model, mapping, (X,))
    prepared(X)
    torch.jit.script(prepared)
    return [str(prepared), len(convert_fx(prepared.eval()).graph.nodes)]


def quantized_eagerly(model):
    from torch.ao import quantization

    model.qconfig = quantization.get_default_qat_qconfig()
    prepared = quantization.prepare_qat(model)
    prepared(X)
    assert not any(
        type(hook).__module__.startswith("sm_tblog")
        for module in prepared.modules()
        for hook in module._forward_hooks.values()
    )
    return str(prepared)


def transformed(model):
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, x).square().mean()

    gradients = torch.func.grad(loss)(parameters, X)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, X)
    jvp = torch.func.jvp(model, (X,), (X,))
    jacobian = torch.func.jacrev(model)(X)
    return [*gradients.values(), *each.values(), *jvp, jacobian]


def checkpointed(model, **options):
    from torch.utils.checkpoint import checkpoint

    checkpoint(model, X, use_reentrant=False, **options).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


def checkpointed_selectively(model):
    from torch.utils import checkpoint

    def keep_all(*_, **__):
        return checkpoint.CheckpointPolicy.MUST_SAVE

    def contexts():
        return checkpoint.create_selective_checkpoint_contexts(keep_all)

    return checkpointed(model, context_fn=contexts)


def replicated(model):
    replica = model._replicate_for_data_parallel()
    for name, module in list(replica._modules.items()):
        replica._modules[name] = module._replicate_for_data_parallel()
    replica.first.weight, replica.first.bias = model.first.weight * 2, model.first.bias * 3
    return replica(X)


def in_modes(model):
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(getattr(function, "__name__", ""))
            return function(*args, **(kwargs or {}))

    optimizer = sgd(model)
    with Operations(), Functions():
        update(model, optimizer, X)
        update(model, optimizer, X)
    return seen


def with_a_default_device(model):
    optimizer = sgd(model)
    with torch.device("meta"):
        update(model, optimizer, X)
    return model(X)


def pickled(model):
    return [
        sorted(vars(pickle.loads(pickle.dumps(model)))),
        sorted(vars(copy.deepcopy(model))),
        sorted(vars(copy.copy(model))),
    ]


def all_attributes(model):
    """Copies in the way of classes that have a ``__getstate__`` of their own."""
    return [
        sorted(pickle.loads(pickle.dumps(vars(model)))),
        copy.deepcopy(vars(model)).get("_compiled_call_impl"),
    ]


def hooks(model):
    return [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ]


USES = [
    *(scripted, scripted_copy, scripted_part, scripted_average, traced, symbolic, made_graph),
    *(made_graphs_of_fakes, exported, quantized, quantized_eagerly, transformed, checkpointed),
    *(checkpointed_selectively, replicated, in_modes, with_a_default_device, pickled, hooks),
]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("kind", [Net, net])
@pytest.mark.parametrize("use", USES)
def test_what_other_code_does_with_a_model_is_as_without_a_watch(tmp_path, use, kind, caplog):
    if use is replicated and kind is net:
        pytest.skip("made for the other model")
    expected = use(kind())
    model = kind()
    with Writer(tmp_path) as writer:
        writer.watch(model, every=1, histograms=1)
        assert observed(model)
        result = use(model)
    assert same(result, expected)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_copies_of_all_attributes_have_no_watch(tmp_path):
    model = Net()
    with Writer(tmp_path) as writer:
        writer.watch(model)
        model.first.__dict__["again"] = 1
        attributes, slot = all_attributes(model.first)
    assert slot is None
    assert "again" in attributes


def test_a_model_goes_on_being_watched_after_all_that(watched):
    model = Net()

    def train(writer, watch):
        for use in (scripted, symbolic, traced, made_graph, exported, transformed):
            use(model)
        update(model, sgd(model), X)

    tags = watched(train, model)
    assert [step for step, _ in tags["activations/first/mean"]] == [0]
    assert [step for step, _ in tags["gradients/all/norm"]] == [0]


def test_nothing_is_left_in_the_model_at_the_end(tmp_path):
    model = net()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with Writer(tmp_path) as writer:
        writer.watch(model, every=1)
        update(model, sgd(model))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


def test_two_writers_watch_one_model(tmp_path, read_scalars):
    model = net()
    writers = [Writer(tmp_path / name) for name in "ab"]
    first, _ = (writer.watch(model, every=1, rules=None) for writer in writers)
    optimizer = sgd(model)
    update(model, optimizer)
    first.remove()
    update(model, optimizer)
    for writer in writers:
        writer.close()
    steps = [
        [step for step, _ in read_scalars(tmp_path / name)[""]["activations/0/mean"]]
        for name in "ab"
    ]
    assert steps == [[0], [0, 1]]
    assert not observed(model)


def test_a_layer_may_be_compiled_while_it_is_watched(watched):
    model = net()

    def train(writer, watch):
        optimizer = sgd(model)
        model[0].compile(backend="eager")
        assert model[0]._compiled_call_impl is not None
        for _ in range(2):
            update(model, optimizer)
        train.compiled = model[0]._compiled_call_impl

    tags = watched(train, model)
    assert "activations/0/mean" not in tags
    assert [step for step, _ in tags["activations/2/mean"]] == [0, 1]
    assert model[0]._compiled_call_impl is train.compiled


@pytest.mark.parametrize("every", [1, 2])
def test_log_steps_recompile_nothing(watched, every):
    from torch._dynamo.utils import counters

    model = Net()
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, backend="eager")

    def train(writer, watch):
        optimizer = sgd(model)
        for _ in range(6):
            update(compiled, optimizer, X)

    watched(train, model, every=every)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_the_step_of_a_compiled_optimizer_is_reported_by_a_call(watched):
    model = net()
    torch._dynamo.reset()

    def train(writer, watch):
        optimizer = sgd(model)
        step = torch.compile(optimizer.step, backend="eager")
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(40, 6)).square().mean().backward()
            step()
            watch.step()

    tags = watched(train, model)
    assert [step for step, _ in tags["gradients/all/norm"]] == [0, 1, 2]


def test_the_model_is_not_kept_by_the_watch_if_it_is_itself_a_layer(tmp_path):
    import gc
    import weakref

    model = nn.Linear(6, 2)
    with Writer(tmp_path) as writer:
        writer.watch(model, every=1)
        update(model, sgd(model))
        reference = weakref.ref(model)
        del model
        gc.collect()
        assert reference() is None


def test_an_exception_in_a_layer_is_the_users(tmp_path):
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError(x)

    model = Fails()
    with Writer(tmp_path) as writer:
        writer.watch(model)
        with pytest.raises(KeyError, match="7"):
            model(7)
