"""Plans, and calls prepared from them."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

from . import _arrays, _ffi, _frameworks, _library
from ._arrays import HOST, Spec
from ._context import Context, ContextHandle, choose, default_context
from ._errors import invalid, raise_error

_lib: Any = _library.library


def _flag_names(prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in vars(_ffi).items()
        if name.startswith(prefix) and isinstance(value, int)
    }


GRADS = _flag_names("ATTN_SDPA_GRAD_")
SDPA_FLAGS = {
    name: value
    for name, value in _flag_names("ATTN_SDPA_").items()
    if not name.startswith("grad_") and name not in ("forward", "backward")
}
MERGE_FLAGS = _flag_names("ATTN_MERGE_")


def _names(enum_class: Any, prefix: str) -> dict[str, int]:
    return {m.name.removeprefix(prefix).lower(): m.value for m in enum_class}


ENUMS: dict[str, dict[str, int]] = {
    "pass": _names(_ffi.attn_sdpa_pass, "ATTN_SDPA_"),
    "q_layout": _names(_ffi.attn_layout, "ATTN_LAYOUT_"),
    "kv_layout": _names(_ffi.attn_layout, "ATTN_LAYOUT_"),
    "alignment": _names(_ffi.attn_alignment, "ATTN_ALIGN_"),
    "activation": _names(_ffi.attn_activation, "ATTN_ACTIVATION_"),
    "lse_base": {"e": _ffi.ATTN_LSE_BASE_E, "2": _ffi.ATTN_LSE_BASE_2},
    "split_policy": _names(_ffi.attn_split_policy, "ATTN_SPLIT_"),
    "determinism": _names(_ffi.attn_determinism, "ATTN_DETERMINISM_"),
    "granularity": _names(_ffi.attn_quant_granularity, "ATTN_QUANT_"),
}


def _flags(value: int | Iterable[str], names: dict[str, int], field: str) -> int:
    if isinstance(value, int):
        return value
    bits = 0
    for name in value:
        bits |= choose(names, name, field)
    return bits


def fill_desc(desc: Any, fields: dict[str, Any], flags: dict[str, int]) -> Any:
    """Sets fields of a descriptor by their C names; strings are names of dtypes and of enums."""
    known = {field[0] for field in desc._fields_}
    for name, value in fields.items():
        field = "pass" if name == "pass_" else name
        if field not in known or field == "struct_size":
            raise TypeError(f"{type(desc).__name__} has no field {name!r}")
        if field == "flags":
            value = _flags(value, flags, "desc.flags")
        elif field == "grads":
            value = _flags(value, GRADS, "desc.grads")
        elif field.endswith("dtype"):
            value = _arrays.dtype_code(value, f"desc.{field}")
        elif field in ENUMS:
            value = choose(ENUMS[field], value, f"desc.{field}")
        elif isinstance(value, dict):
            value = fill_desc(_ffi.attn_quant(), value, {})
        try:
            setattr(desc, field, value)
        except TypeError as error:
            raise invalid(f"desc.{field}", f"desc.{field} is {value!r}: {error}") from None
    return desc


_POINTER_TYPE = type(ctypes.POINTER(ctypes.c_int32)()).__mro__[1]  # ctypes._Pointer


def _slots(struct: Any) -> dict[str, tuple[int, bool]]:
    """Name of a tensor argument -> (offset in the struct, whether it is an attn_tensor)."""
    slots: dict[str, tuple[int, bool]] = {}
    for name, type_ in struct._fields_:
        if type_ is _ffi.attn_tensor:
            slots[name] = (getattr(struct, name).offset, True)
        elif name != "forward" and issubclass(type_, _POINTER_TYPE):
            slots[name] = (getattr(struct, name).offset, False)
    return slots


_SDPA_SLOTS = _slots(_ffi.attn_sdpa_args)
_BACKWARD_SLOTS = _slots(_ffi.attn_sdpa_backward_args)
_MERGE_SLOTS = _slots(_ffi.attn_merge_args)
_WRITTEN = frozenset(("dq", "dk", "dv", "dbias", "dsink", "dgate", "out_lse"))

# A prepared call keeps its workspace for the next time, unless it is larger than this.
_KEPT_WORKSPACE = 64 << 20
_NO_WORKSPACE = (0, 0)


def aligned_buffer(size: int, alignment: int) -> tuple[Any, int]:
    """(owner, address) of host memory."""
    if size == 0:
        return None, 0
    owner = ctypes.create_string_buffer(size + alignment)
    return owner, -(-ctypes.addressof(owner) // alignment) * alignment


class _State:
    """The C arguments of a call, filled but for the addresses. One thread uses it at a time."""

    __slots__ = ("error", "structs", "cells", "arguments", "workspace")

    def __init__(self, plan: Plan, specs: list[Spec], batch: int) -> None:
        self.error = _ffi.attn_error()
        family = plan.family
        forward: Any
        if family == "merge":
            forward = _ffi.attn_merge_args()
            groups = [(forward, _MERGE_SLOTS)]
        else:
            forward = _ffi.attn_sdpa_args()
            groups = [(forward, _SDPA_SLOTS)]
            forward.batch = batch
        outer = forward
        if family == "sdpa_backward":
            outer = _ffi.attn_sdpa_backward_args()
            outer.forward = ctypes.pointer(forward)
            groups.append((outer, _BACKWARD_SLOTS))
        self.structs = (forward, outer)
        self.cells: list[Any] = []
        for name, code, shape, strides in specs:
            for struct, slots in groups:
                if name in slots:
                    break
            else:
                raise TypeError(f"{family} has no argument {name!r}")
            offset, is_tensor = slots[name]
            self.cells.append(ctypes.c_void_p.from_buffer(struct, offset))
            if is_tensor:
                rank = len(shape)
                if rank > _ffi.ATTN_MAX_RANK:
                    raise invalid(
                        name, f"{name} has {rank} dimensions; at most {_ffi.ATTN_MAX_RANK}"
                    )
                tensor = getattr(struct, name)
                tensor.dtype = code
                tensor.rank = rank
                tensor.shape[:rank] = shape
                tensor.stride[:rank] = strides
        # On a device, memory comes with each execute.
        self.workspace, address = aligned_buffer(
            plan.workspace_bytes if plan.device == HOST else 0, plan.workspace_alignment
        )
        self.arguments = (
            plan.pointer, ctypes.byref(outer), address, plan.workspace_bytes, None,
            ctypes.byref(self.error),
        )


class Call:
    """A plan with tensors of known shapes: only addresses are missing."""

    __slots__ = ("plan", "specs", "batch", "outputs", "_function", "_free", "_keep")

    def __init__(self, plan: Plan, specs: list[Spec], batch: int, outputs: Any = ()) -> None:
        self.plan = plan
        self.specs = specs
        self.batch = batch
        self.outputs = outputs
        self._function = plan.function
        self._keep = plan.device != HOST or plan.workspace_bytes <= _KEPT_WORKSPACE
        # States that no thread uses now. append and pop are atomic.
        self._free: list[_State] = [_State(plan, specs, batch)]

    def run(self, addresses: list[int]) -> None:
        """Executes on the default stream with a workspace of its own. The caller keeps what the
        addresses point to alive."""
        try:
            state = self._free.pop()
        except IndexError:
            state = _State(self.plan, self.specs, self.batch)
        for cell, address in zip(state.cells, addresses):
            cell.value = address
        status = self._function(*state.arguments)
        if status:
            raise_error(status, state.error)
        if self._keep:
            self._free.append(state)

    def run_with(self, addresses: list[int], workspace: tuple[int, int],
                 stream: int | None) -> None:
        """As run, with a workspace (address, bytes) and a stream of the caller's."""
        try:
            state = self._free.pop()
        except IndexError:
            state = _State(self.plan, self.specs, self.batch)
        for cell, address in zip(state.cells, addresses):
            cell.value = address
        arguments = state.arguments
        status = self._function(arguments[0], arguments[1], workspace[0], workspace[1], stream,
                                arguments[5])
        if status:
            raise_error(status, state.error)
        if self._keep:
            self._free.append(state)

    def run_on(self, addresses: list[int], maker: Any, like: Any, stream: int,
               current: bool = False) -> None:
        """Executes on a stream of a device, with a workspace from the maker of `like`, which is in
        use until the stream has done the work: as the allocators of the makers know. `current`: it
        is known to be the maker's current one."""
        plan = self.plan
        size = plan.workspace_bytes
        if size == 0:
            self.run_with(addresses, _NO_WORKSPACE, stream)
        else:
            owner = scratch(plan, maker, like, size, None if current else stream)
            self.run_with(addresses, owner[1:], stream)


@dataclasses.dataclass(frozen=True)
class PlanInfo:
    """What attn_plan_query says."""

    implementation: str
    """The chosen implementation's name."""
    deterministic: bool
    """Same inputs give the same bits, run after run."""
    capturable: bool
    asynchronous: bool
    workspace_bytes: int
    workspace_alignment: int
    tune_workspace_bytes: int
    num_implementations: int


def scratch(plan: Plan, maker: Any, like: Any, size: int,
            stream: int | None) -> tuple[Any, int, int]:
    """(owner, address, bytes) of device memory for one execute of a plan."""
    alignment = plan.workspace_alignment
    # What allocators of device memory give is aligned to 256 bytes at least.
    room = size if alignment <= 256 else size + alignment
    owner, address = maker.scratch(like, plan.device, room, stream)
    return owner, -(-address // alignment) * alignment, size


def context_of(context: Context | None, device: _arrays.Device, first: str) -> Context:
    """The context for arrays on a device: the caller's, if it is for that one."""
    if context is None:
        return default_context(device)
    if context.device != device:
        raise invalid("context", f"context is for {_frameworks.device_name(context.device)}, but "
                                 f"{first} is on {_frameworks.device_name(device)}")
    return context


def run(call: Call, addresses: list[int], values: Iterable[tuple[str, Any]],
        maker: _frameworks.Maker | None, like: Any, device: _arrays.Device) -> list[Any]:
    """Makes the outputs (name, shape, dtype as the maker takes it), executes and gives them.

    Args:
        values: the arrays whose addresses are given, or at least those that say what stream they
            are in use on.
        maker: of `like`, which its recipes for outputs are made for; None: numpy.
    """
    outputs = call.outputs
    if maker is None:
        results = []
        if outputs:
            empty = sys.modules["numpy"].empty
            for _, shape, dtype in outputs:
                array = empty(shape, dtype)
                addresses.append(_arrays.address_of(array))
                results.append(array)
        call.run(addresses)
        return results
    made = []
    for _, shape, recipe in outputs:
        array, address = maker.new(like, device, shape, recipe)
        made.append(array)
        addresses.append(address)
    if device is HOST or device == HOST:
        call.run(addresses)
    else:
        stream = _frameworks.stream_of(maker, device, values) if values else maker.stream(device)
        call.run_on(addresses, maker, like, stream, not values)
        maker.launched(device, stream)
    return [maker.finish(array) for array in made] if maker.unfinished else made


class Workspace:
    """Host memory for a plan's executes; one execute at a time may use it."""

    def __init__(self, size: int, alignment: int) -> None:
        self.nbytes = size
        self._owner, self.address = aligned_buffer(size, alignment)


def merge_desc(fields: dict[str, Any]) -> Any:
    """An attn_merge_desc from keyword arguments."""
    return fill_desc(_ffi.attn_merge_desc(), fields, MERGE_FLAGS)


def sdpa_desc(fields: dict[str, Any]) -> Any:
    """An attn_sdpa_desc from keyword arguments."""
    return fill_desc(_ffi.attn_sdpa_desc(), fields, SDPA_FLAGS)


class Plan:
    """How to compute one described problem on one context.

    Make it with Plan.sdpa or Plan.merge. Immutable: threads may share it and execute it at the
    same time. One plan serves every step whose lengths stay within its limits.

        plan = attn.Plan.sdpa(
            q_dtype="bf16", num_q_heads=32, num_kv_heads=8, head_dim_qk=128,
            kv_layout="paged_table", page_size=16, flags=["causal", "seqused_k"],
            max_batch=8, max_seqlen_q=1, max_seqlen_k=8192, softmax_scale=128**-0.5)
        plan.execute(q=q, k=k_pool, v=v_pool, out=out, seqused_k=lengths, block_table=table)
    """

    def __init__(self, desc: Any, context: Context | None, implementation: str | None,
                 tuning: str | None) -> None:
        self._setup(desc, (context or default_context()).handle)
        create = (
            _lib.attn_merge_plan_create if self.family == "merge" else _lib.attn_sdpa_plan_create
        )
        error = _ffi.attn_error()
        options = _options(implementation, tuning)
        status = create(self._context.pointer, desc, options, self.pointer, error)
        if status:
            raise_error(status, error)
        self._query()

    def _setup(self, desc: Any, context: ContextHandle) -> None:
        self.pointer = ctypes.POINTER(_ffi.attn_plan)()
        self._context = context
        self.device = context.device
        self._desc = desc
        self._calls: dict[Any, Call] = {}
        if isinstance(desc, _ffi.attn_merge_desc):
            self.family = "merge"
            self.function = _lib.attn_merge
        elif getattr(desc, "pass") == _ffi.ATTN_SDPA_BACKWARD:
            self.family = "sdpa_backward"
            self.function = _lib.attn_sdpa_backward
        else:
            self.family = "sdpa"
            self.function = _lib.attn_sdpa_forward

    def _query(self) -> None:
        info, error = _ffi.attn_plan_info(), _ffi.attn_error()
        status = _lib.attn_plan_query(self.pointer, info, error)
        if status:
            raise_error(status, error)
        self.workspace_bytes: int = info.workspace_bytes
        self.workspace_alignment: int = info.workspace_alignment or 1
        self.info = PlanInfo(
            info.implementation.decode(), bool(info.deterministic), bool(info.capturable),
            bool(info.asynchronous), info.workspace_bytes, self.workspace_alignment,
            info.tune_workspace_bytes, info.num_implementations,
        )

    def __del__(self, _destroy: Any = _lib.attn_plan_destroy) -> None:
        pointer = getattr(self, "pointer", None)
        if pointer:
            _destroy(pointer)

    @classmethod
    def sdpa(cls, *, context: Context | None = None, implementation: str | None = None,
             tuning: str | None = None, **desc: Any) -> Plan:
        """A plan for attention.

        Args:
            context: default: default_context().
            implementation: the name of the implementation to use; default: the best.
            tuning: lines that Plan.export gave.
            desc: the fields of attn_sdpa_desc (include/attn/sdpa.h) by name. Dtypes and enums
                may be names ("bf16", "ragged"), flags and grads lists of names (["causal",
                "return_lse"]); `pass` is written pass_; q_quant and its like are dicts.

        Raises InvalidArgumentError (its field names the descriptor's), UnsupportedError with the
        reason, VersionError, OutOfMemoryError.
        """
        return cls(sdpa_desc(desc), context, implementation, tuning)

    @classmethod
    def merge(cls, *, context: Context | None = None, implementation: str | None = None,
              tuning: str | None = None, **desc: Any) -> Plan:
        """A plan for merging: as Plan.sdpa, with the fields of attn_merge_desc."""
        return cls(merge_desc(desc), context, implementation, tuning)

    @property
    def implementations(self) -> list[str]:
        """The names of all implementations that could serve the problem, best first."""
        names = []
        for index in range(self.info.num_implementations):
            name, error = ctypes.c_char_p(), _ffi.attn_error()
            status = _lib.attn_plan_implementation(self.pointer, index, name, error)
            if status:
                raise_error(status, error)
            names.append((name.value or b"").decode())
        return names

    def prepare(self) -> None:
        """Loads modules ahead of the first execute. On the CPU it does nothing."""
        error = _ffi.attn_error()
        status = _lib.attn_plan_prepare(self.pointer, error)
        if status:
            raise_error(status, error)

    def export(self) -> str:
        """The plan's choice as a line of text that `tuning` takes."""
        length, error = ctypes.c_size_t(), _ffi.attn_error()
        status = _lib.attn_plan_export(self.pointer, None, 0, length, error)
        if not status:
            text = ctypes.create_string_buffer(length.value + 1)
            status = _lib.attn_plan_export(self.pointer, text, len(text), length, error)
        if status:
            raise_error(status, error)
        return text.value.decode()

    def workspace(self) -> Workspace:
        """Host memory for `execute` of a plan for the CPU, to be made once and used again and
        again. For a GPU, memory comes from your framework: an array of uint8 with workspace_bytes
        elements."""
        if self.device != HOST:
            raise invalid(
                "workspace", f"this plan is for {_frameworks.device_name(self.device)}: make its "
                f"workspace with your framework, {self.workspace_bytes} bytes (uint8) there"
            )
        return Workspace(self.workspace_bytes, self.workspace_alignment)

    def _prepare(self, tensors: dict[str, Any],
                 stream: int | None) -> tuple[Call, list[int], list[Any]]:
        numpy = sys.modules.get("numpy")
        ndarray = getattr(numpy, "ndarray", None)
        key: list[Any] = []
        addresses: list[int] = []
        kept: list[Any] = []
        for name, value in tensors.items():
            if value is None:
                continue
            if name == "rng_state":
                value = rng_state(value, f"args.{name}", stream)
            elif name in POINTERS:
                value = _frameworks.integers(value, f"args.{name}", numpy, stream)
            if type(value) is ndarray:
                if name in _WRITTEN or (name in ("out", "lse", "row_max")
                                        and self.family != "sdpa_backward"):
                    check_writable(value, name)
                if self.device != HOST:
                    self._elsewhere(name, HOST)
                addresses.append(_arrays.address_of(value))
                key += (name, value.shape, value.strides, value.dtype)
            else:
                value = _frameworks.view_of(value, f"args.{name}", stream)
                if value.device != self.device:
                    self._elsewhere(name, value.device)
                addresses.append(value.address)
                key += (name, value.shape, value.strides, value.dtype)
            kept.append((name, value))
        lookup = tuple(key)
        call = self._calls.get(lookup)
        if call is None:
            values = dict(kept)
            batch = 0 if self.family == "merge" else check_lengths(values, "args.")
            call = Call(self, [spec_of(name, value) for name, value in kept], batch)
            if len(self._calls) >= 64:
                self._calls.clear()
            self._calls[lookup] = call
        if "kv_page_indptr" in tensors:
            check_page_indices(dict(kept))
        return call, addresses, kept

    def _elsewhere(self, name: str, device: _arrays.Device) -> None:
        raise invalid(
            f"args.{name}", f"{name} is on {_frameworks.device_name(device)}, but the plan is for "
            f"{_frameworks.device_name(self.device)}"
        )

    def _stream(self, stream: Any, tensors: dict[str, Any]) -> tuple[int | None, Any, Any]:
        """(handle, maker, one of its arrays): the stream to use, and who allocates there."""
        if self.device == HOST:
            return None if stream is None else _frameworks.stream_handle(stream), None, None
        like = next((x for x in tensors.values() if x is not None), None)
        maker = _frameworks.maker_of(like)
        if stream is None:
            return maker.stream(self.device), maker, like
        return _frameworks.stream_handle(stream), maker, like

    def execute(self, *, workspace: Any = None, stream: Any = None, **tensors: Any) -> None:
        """Executes the plan once; results are written into the tensors given for them.

        Args:
            workspace: from Plan.workspace, for a GPU a uint8 array on its device; default: one
                that the plan keeps for each thread that executes it at the same time, for a GPU
                one from the allocator of the first tensor's framework.
            stream: GPU: a torch.cuda.Stream, a cupy stream, an object with __cuda_stream__ or the
                driver's handle (an int); default: the current stream of the first tensor's
                framework. CPU: None.
            tensors: the members of attn_sdpa_args (a backward plan: also those of
                attn_sdpa_backward_args) or attn_merge_args by name, with the shapes that the
                headers give. Integer arrays may be lists. A new list of shapes costs some tens
                of microseconds the first time.

        Raises InvalidArgumentError, which names the tensor ("args.k.shape[2]"), WorkspaceError.
        """
        handle, maker, like = self._stream(stream, tensors)
        call, addresses, _kept = self._prepare(tensors, handle)
        if workspace is not None:
            call.run_with(addresses, self._given(workspace, handle), handle)
        elif maker is not None:
            call.run_on(addresses, maker, like, handle or 0)
        elif handle is None:
            call.run(addresses)
        else:
            call.run_with(addresses, (0, 0), handle)  # which the library refuses

    def _given(self, workspace: Any, stream: int | None) -> tuple[int, int]:
        """(address, bytes) of a workspace of the caller's."""
        if isinstance(workspace, Workspace):
            if self.device != HOST:
                self._elsewhere("workspace", HOST)
            return workspace.address, workspace.nbytes
        view = _frameworks.view_of(workspace, "workspace", stream)
        if view.device != self.device:
            self._elsewhere("workspace", view.device)
        if view.dtype != _ffi.ATTN_DTYPE_UINT8 or len(view.shape) != 1 or view.strides != (1,):
            raise invalid("workspace",
                          "workspace must be a contiguous uint8 array of one dimension")
        return view.address, view.shape[0]

    def tune(self, *, stream: Any = None, **tensors: Any) -> Plan:
        """Times all implementations on the given tensors; returns a new plan with the fastest.

        The outputs hold a correct result afterwards. For attention only. stream: as in execute.
        """
        if self.family == "merge":
            raise invalid("plan", "merge plans cannot be tuned")
        handle, maker, like = self._stream(stream, tensors)
        call, addresses, _kept = self._prepare(tensors, handle)
        state = _State(self, call.specs, call.batch)
        for cell, address in zip(state.cells, addresses):
            cell.value = address
        forward, outer = state.structs
        backward = self.family == "sdpa_backward"
        size = self.info.tune_workspace_bytes
        if maker is None:
            _owner, memory = aligned_buffer(size, self.workspace_alignment)
        else:
            _owner, memory, _ = scratch(self, maker, like, size, handle)
        tuned = Plan.__new__(Plan)
        tuned._setup(self._desc, self._context)
        status = _lib.attn_sdpa_plan_tune(
            self.pointer, None if backward else ctypes.byref(forward),
            ctypes.byref(outer) if backward else None, memory, size, handle, tuned.pointer,
            state.error,
        )
        if status:
            raise_error(status, state.error)
        tuned._query()
        return tuned

    def __repr__(self) -> str:
        return f"<attn.Plan {self.info.implementation}, workspace {self.workspace_bytes} bytes>"


POINTERS = frozenset(
    name for name, (_, is_tensor) in _SDPA_SLOTS.items() if not is_tensor and name != "rng_state"
)


def check_lengths(values: dict[str, Any], prefix: str = "") -> int:
    """The number of sequences, and that each array of lengths or offsets has as many entries: the
    C structs carry no length for them."""
    if "cu_seqlens_q" in values:
        batch = int(values["cu_seqlens_q"].shape[0]) - 1
        if batch < 0:
            raise invalid(f"{prefix}cu_seqlens_q",
                          "cu_seqlens_q is empty; it has batch + 1 entries")
    else:
        batch = int(values["q"].shape[0]) if "q" in values and values["q"].shape else 0
    for name, more in (("cu_seqlens_k", 1), ("kv_page_indptr", 1), ("kv_last_page_len", 0),
                       ("seqused_q", 0), ("seqused_k", 0)):
        if name in values and int(values[name].shape[0]) != batch + more:
            raise invalid(
                f"{prefix}{name}",
                f"{name} has {values[name].shape[0]} entries; with {batch} sequences it must have "
                f"{batch + more}",
            )
    # Dense queries get their batch from q itself.
    return batch if "cu_seqlens_q" in values else 0


def check_page_indices(values: dict[str, Any]) -> None:
    """Refuses an index array that is shorter than its offsets say."""
    if "kv_page_indptr" not in values or values["kv_page_indptr"] is None:
        return
    indptr, indices = values["kv_page_indptr"], values.get("kv_page_indices")
    if isinstance(indptr, _arrays.View):
        if indptr.device != HOST:
            return
        indptr = _frameworks.read_integers(indptr)
    count = 0 if indices is None else (
        indices.shape[0] if hasattr(indices, "shape") else len(indices)
    )
    if len(indptr) and int(indptr[-1]) > count:
        raise invalid(
            "args.kv_page_indices",
            f"kv_page_indices has {count} entries; kv_page_indptr ends with {int(indptr[-1])}",
        )


def rng_state(value: Any, field: str, stream: int | None = None) -> _arrays.View:
    """(seed, offset), or an int64 array of both, as the two uint64 that the library reads."""
    numpy = sys.modules.get("numpy")
    if not isinstance(value, (tuple, list)) and (numpy is None
                                                 or not isinstance(value, numpy.ndarray)):
        view = _frameworks.view_of(value, field, stream)
        if view.dtype != _ffi.ATTN_DTYPE_INT64 or view.shape != (2,) or view.strides != (1,):
            raise invalid(field,
                          f"{field} must be (seed, offset), or a contiguous int64 array of both")
        return view
    seed, offset = (int(n) for n in value)
    memory = (ctypes.c_uint64 * 2)(seed, offset)
    return _arrays.View(ctypes.addressof(memory), 0, (2,), (1,), memory)


def check_writable(value: Any, name: str) -> None:
    """Refuses a read-only array for a result."""
    if isinstance(value, _arrays.View):
        read_only = value.read_only
    else:  # (PyTorch's tensors have no flags, and are writable.)
        read_only = hasattr(value, "flags") and not value.flags.writeable
    if read_only:
        raise invalid(f"args.{name}", f"{name} is read-only, but results are written to it")


def spec_of(name: str, value: Any) -> Spec:
    """(name, dtype, shape, strides in elements) of a numpy array or View."""
    if isinstance(value, _arrays.View):
        return name, value.dtype, value.shape, value.strides
    code = _arrays.numpy_code(value.dtype, name)
    return name, code, value.shape, _arrays.element_strides(
        value.strides, value.dtype.itemsize, name
    )


def _options(implementation: str | None, tuning: str | None) -> Any:
    if implementation is None and tuning is None:
        return None
    return _ffi.attn_plan_options(
        implementation=None if implementation is None else implementation.encode(),
        tuning=None if tuning is None else tuning.encode(),
    )


def supported(desc: dict[str, Any], *, family: str = "sdpa", context: Context | None = None,
              implementation: str | None = None) -> tuple[bool, str]:
    """Whether a plan could be made, and if not, why: (True, "") or (False, reason).

    Args:
        desc: the fields of attn_sdpa_desc, or of attn_merge_desc for the family "merge", as
            Plan.sdpa takes them.
    """
    handle = (context or default_context()).handle
    error = _ffi.attn_error()
    if family == "merge":
        function, record = _lib.attn_merge_supported, merge_desc(desc)
    else:
        function, record = _lib.attn_sdpa_supported, sdpa_desc(desc)
    status = function(handle.pointer, record, _options(implementation, None), error)
    return (not status, error.message.decode() if status else "")

