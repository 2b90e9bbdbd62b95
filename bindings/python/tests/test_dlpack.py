"""Arrays that are not numpy's: DLPack, in and out."""

import gc
import importlib
import sys
import types

import attn
import ml_dtypes
import numpy as np
import pytest
import reference
from attn import _dlpack
from conftest import assert_close, frameworks


class Tensor:
    """A framework's array: numpy inside, and nothing but DLPack outside."""

    def __init__(self, array, versioned=True):
        self.array = array
        self.versioned = versioned
        self.streams = []

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **kwargs):
        if not self.versioned and "max_version" in kwargs:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.streams.append(kwargs.get("stream"))
        return self.array.__dlpack__(**kwargs)


@pytest.fixture
def framework(monkeypatch):
    """A module `stand_in` with Tensor and from_dlpack."""
    module = types.ModuleType("stand_in")
    module.from_dlpack = lambda x: Tensor(np.from_dlpack(x))
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setattr(Tensor, "__module__", "stand_in.tensors")
    return module


def arrays(rng, dtype=np.float32):
    return [rng.standard_normal((2, 5, h, 8)).astype(dtype) for h in (4, 2, 2)]


@pytest.mark.parametrize("versioned", [False, True])
def test_the_kind_that_was_given_comes_back(rng, framework, versioned):
    q, k, v = arrays(rng)
    expected = reference.batch(q, k, v, is_causal=True)
    tensors = [Tensor(x, versioned) for x in (q, k, v)]
    out, lse = attn.sdpa(*tensors, is_causal=True, return_lse=True)
    assert type(out) is Tensor and type(lse) is Tensor
    assert_close(out.array, expected[0])
    assert_close(lse.array, expected[1])
    assert tensors[0].streams == [None]
    grads = attn.sdpa_backward(out, *tensors, out, lse, is_causal=True)
    numpy_grads = attn.sdpa_backward(out.array, q, k, v, out.array, lse.array, is_causal=True)
    for a, b in zip(grads[:3], numpy_grads[:3]):
        assert_close(a.array, b)
    rows = [x.array.transpose(0, 2, 1).reshape(10, 1, 4) for x in (lse,)][0]
    merged, _ = attn.merge(Tensor(out.array.reshape(10, 1, 4, 8)),
                           Tensor(np.ascontiguousarray(rows)))
    assert type(merged) is Tensor
    assert_close(merged.array, out.array.reshape(10, 4, 8))


def test_mixed_with_numpy_and_strided(rng, framework):
    q, k, v = arrays(rng)
    out = attn.sdpa(q, Tensor(k[:, ::-1]), Tensor(v[:, ::-1]))
    assert type(out) is np.ndarray
    assert_close(out, reference.batch(q, k, v)[0])
    given = np.empty((2, 5, 4, 8), np.float32)
    tensor = Tensor(given)
    assert attn.sdpa(Tensor(q), k, v, out=tensor) is tensor
    assert_close(given, reference.batch(q, k, v)[0])
    masked = attn.sdpa(Tensor(q), k, v, mask=Tensor(np.tril(np.ones((5, 5), bool)).view(np.uint8)
                                                    [:, :1] * 0 + 1))
    assert_close(masked.array, reference.batch(q, k[:, :1], v[:, :1])[0])


def test_without_an_importer_an_object_with_dlpack_comes_back(rng):
    q, k, v = arrays(rng)
    out = attn.sdpa(Tensor(q), Tensor(k), Tensor(v))  # this module has no from_dlpack
    assert not isinstance(out, np.ndarray)
    assert_close(np.from_dlpack(out), reference.batch(q, k, v)[0])
    with pytest.raises(BufferError):
        out.__dlpack__()


def test_memory_goes_back():
    """Handed over, refused, and never asked for."""
    for _ in range(200):
        taken = np.from_dlpack(_dlpack.Allocation((1000, 1000), attn.DTYPES["fp32"]))
        taken[:] = 1.0
        refused = _dlpack.Allocation((1000, 1000), attn.DTYPES["fp32"])
        refused.__dlpack__(max_version=(1, 0))
        refused.reclaim()
        _dlpack.Allocation((1000, 1000), attn.DTYPES["fp32"])
    del taken, refused
    gc.collect()
    with open("/proc/self/statm") as file:
        assert int(file.read().split()[1]) * 4096 < 2**31
    assert np.from_dlpack(_dlpack.Allocation((0, 3), attn.DTYPES["fp16"])).shape == (0, 3)


class Device(Tensor):
    def __init__(self, device, refuse=True):
        super().__init__(np.ones((1, 2, 1, 8), np.float32))
        self.device = device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **kwargs):
        self.streams.append(kwargs.get("stream"))
        real = _dlpack.Imported(self.array.__dlpack__())
        capsule = self.array.__dlpack__()
        tensor = _dlpack._Managed.from_address(
            _dlpack._capsule_pointer(capsule, b"dltensor")).tensor
        tensor.device_type, tensor.device_id = self.device
        self.keep = real
        return capsule


@pytest.fixture
def no_gpu():
    """For arrays that claim to lie on a GPU: where there is one, it would be asked to read them."""
    try:
        attn.Context("cuda")
    except attn.BackendUnavailableError:
        return
    pytest.skip("this machine has a CUDA GPU: see test_cuda.py")


def test_device_arrays_are_refused_clearly_and_get_the_stream(no_gpu, monkeypatch):
    """No CUDA device: the error says so. The framework's current stream is passed on."""
    module = types.ModuleType("stand_in")
    stream = types.SimpleNamespace(cuda_stream=1234)
    module.cuda = types.SimpleNamespace(current_stream=lambda device: stream)
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setattr(Device, "__module__", "stand_in")
    tensor = Device((2, 0))
    with pytest.raises(attn.BackendUnavailableError):
        attn.sdpa(tensor, tensor, tensor)
    assert tensor.streams[0] == 1234
    stream.cuda_stream = 0  # the legacy default stream is 1 in DLPack
    tensor = Device((2, 0))
    with pytest.raises(attn.BackendUnavailableError):
        attn.sdpa(tensor, tensor, tensor)
    assert tensor.streams[0] == 1
    with pytest.raises(attn.InvalidArgumentError, match="device type 7"):
        attn.sdpa(*[Device((7, 0))] * 3)


def test_cuda_array_interface(no_gpu):
    class OnDevice:
        __cuda_array_interface__ = {
            "shape": (1, 2, 1, 8), "typestr": "<f4", "data": (4096, False), "version": 3,
            "strides": None, "stream": 1,
        }

    with pytest.raises(attn.BackendUnavailableError):
        attn.sdpa(OnDevice(), OnDevice(), OnDevice())


def test_unknown_types(rng):
    q, k, v = arrays(rng)
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(Tensor(q.astype(np.float64)), k, v)
    assert caught.value.field == "q" and "64 bits" in str(caught.value)


def to_framework(name, array):
    if name == "jax":
        return importlib.import_module("jax.numpy").asarray(array)
    torch = importlib.import_module("torch")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(name, value):
    if name == "torch":
        value = value.float().numpy()
    return np.asarray(value).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", frameworks())
def test_real_frameworks(rng, name, dtype):
    """Those that are installed; the header of the run says which."""
    q, k, v = arrays(rng, dtype)
    expected = reference.batch(q, k, v, is_causal=True)
    tensors = [to_framework(name, x) for x in (q, k, v)]
    out, lse = attn.sdpa(*tensors, is_causal=True, return_lse=True)
    assert isinstance(out, type(tensors[0])) and out.dtype == tensors[0].dtype
    assert_close(to_numpy(name, out), expected[0], dtype)
    assert_close(to_numpy(name, lse), expected[1])
    grads = attn.sdpa_backward(out, *tensors, out, lse, is_causal=True)
    assert isinstance(grads.dk, type(tensors[0])) and grads.dk.shape == tensors[1].shape
    if name == "torch":
        mask = importlib.import_module("torch").ones(5, 5).tril().bool()
        masked = attn.sdpa(*tensors, mask=mask)
        assert_close(to_numpy(name, masked), expected[0], dtype)
