"""Mistakes become exceptions that name the field, and outputs stay untouched."""

import pickle

import attn
import numpy as np
import pytest

ONES = np.ones((1, 4, 2, 8), np.float32)


def test_the_field_is_named():
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(np.ones((1, 4, 3, 8), np.float32), ONES, ONES)
    error = caught.value
    assert error.field == "desc.num_kv_heads"
    assert error.status == attn.lowlevel.ATTN_ERROR_INVALID_ARGUMENT
    assert error.status_name == "ATTN_ERROR_INVALID_ARGUMENT"
    assert error.message and str(error) == error.message
    assert isinstance(error, (attn.AttnError, ValueError))


@pytest.mark.parametrize(("options", "field"), [
    ({"scale": float("nan")}, "desc.softmax_scale"),
    ({"scale": 0.0}, "desc.softmax_scale"),
    ({"softcap": -1.0}, "desc.softcap"),
    ({"window": (-2, 0)}, "desc.window_left"),
    ({"window": (1, 2, 3)}, "window"),
    ({"alignment": "left"}, "desc.alignment"),
    ({"layout": "hsbd"}, "layout"),
    ({"mask": np.ones((3, 4, 1), np.uint8)}, "args.mask.shape[1]"),
    ({"mask": np.ones((4, 4), np.float32)}, "args.mask"),
    ({"bias": np.ones((5, 4), np.float32)}, "args.bias.shape[2]"),
    ({"alibi_slopes": np.ones(3, np.float32)}, "args.alibi_slopes.shape[0]"),
    ({"sink": np.ones(2)}, "sink"),  # float64
    ({"dropout_p": 0.5}, "rng_state"),
    ({"dropout_p": 1.0, "rng_state": (1, 2)}, "desc.dropout_p"),
    ({"seqused_k": [1, 2]}, "seqused_k"),
    ({"seqused_k": [9]}, "args.seqused_k"),
    ({"seqused_k": ["a"]}, "seqused_k"),
    ({"seqused_k": np.ones(1)}, "seqused_k"),
    ({"out": np.empty((1, 4, 2, 9), np.float32)}, "args.out.shape[3]"),
    ({"lse": np.empty((1, 4, 2), np.float32)}, "args.lse.shape[1]"),
    ({"out": np.broadcast_to(np.float32(0), (1, 4, 2, 8))}, "args.out"),
    ({"out": ONES}, "args.out"),  # overlaps q
    ({"out_dtype": "fp31"}, "out_dtype"),
    ({"implementation": "cpu/sdpa/forward/nothing"}, "options.implementation"),
    ({"determinism": "yes"}, "desc.determinism"),
    ({"gate": np.ones((1, 4, 2, 3), np.float32)}, "args.gate.shape[3]"),
])
def test_options(options, field):
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(ONES, ONES, ONES, **options)
    assert caught.value.field.startswith(field), (caught.value.field, str(caught.value))
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize(("q", "field"), [
    (np.ones((4, 2, 8), np.float32), "q"),
    (np.ones((1, 4, 2, 8)), "q"),  # float64
    (np.ones((1, 4, 2, 8), ">f4"), "q"),
    ("text", "q"),
    ([[1.0]], "q"),
])
def test_arrays(q, field):
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(q, ONES, ONES)
    assert caught.value.field == field


def test_ragged_lengths():
    q = ONES[0]
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(q, q, q, cu_seqlens_q=[0, 4], cu_seqlens_k=[0, 2, 4])
    assert caught.value.field == "cu_seqlens_k"
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(q, q, q, cu_seqlens_q=[], cu_seqlens_k=[0])
    assert caught.value.field == "cu_seqlens_q"
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(q, q, q, cu_seqlens_q=[0, 4], cu_seqlens_k=[0, 5])
    assert "cu_seqlens_k" in caught.value.field
    for falling in ([1, 0], np.array([1, 0])):
        with pytest.raises(attn.InvalidArgumentError) as caught:
            attn.sdpa(q, q, q, cu_seqlens_q=[0, 4], cu_seqlens_k=falling)
        assert "cu_seqlens_k" in caught.value.field
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(q, q, q, cu_seqlens_q=np.array([[0, 4]]), cu_seqlens_k=[0, 4])
    assert caught.value.field == "cu_seqlens_q"
    with pytest.raises(attn.InvalidArgumentError, match="int32"):
        attn.sdpa(q, q, q, cu_seqlens_q=[0, 2**31], cu_seqlens_k=[0, 4])
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(ONES, ONES, ONES, kv_page_indptr=[0, 3], kv_page_indices=[0],
                  kv_last_page_len=[1])
    assert caught.value.field == "args.kv_page_indices"


def test_unknown_options_and_fields_are_type_errors():
    with pytest.raises(TypeError, match="casual"):
        attn.sdpa(ONES, ONES, ONES, casual=True)
    with pytest.raises(TypeError, match="heads"):
        attn.Plan.sdpa(heads=3)


def test_v_is_missing():
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa(ONES, ONES)
    assert caught.value.field == "v"


def test_unsupported_has_a_reason():
    q = np.ones((1, 4, 2, 8), np.int8)
    with pytest.raises(attn.UnsupportedError) as caught:
        attn.sdpa(q, ONES, ONES, q_scale=0.1, implementation="cpu/sdpa/forward/tuned")
    assert isinstance(caught.value, NotImplementedError)
    assert "cpu/sdpa/forward/tuned" in caught.value.message and len(caught.value.message) > 40


def test_backends_that_are_absent():
    try:
        cuda = attn.device_count("cuda")
    except attn.BackendUnavailableError as absent:
        with pytest.raises(attn.BackendUnavailableError, match="CUDA|NVIDIA") as caught:
            attn.Context("cuda")
        assert caught.value.message == absent.message
    else:  # a machine with a GPU
        with pytest.raises(attn.InvalidArgumentError):
            attn.Context("cuda", device=cuda)
    with pytest.raises(attn.BackendUnavailableError, match="HIP"):
        attn.device_count("hip")
    with pytest.raises(attn.InvalidArgumentError):
        attn.Context("tpu")
    with pytest.raises(attn.InvalidArgumentError):
        attn.Context("cpu", num_threads=-1)


def test_outputs_stay_untouched():
    out = np.full((1, 4, 2, 8), 7.0, np.float32)
    with pytest.raises(attn.InvalidArgumentError):
        attn.sdpa(ONES, ONES[..., :4], ONES, out=out)
    assert (out == 7.0).all()


def test_errors_pickle():
    with pytest.raises(attn.AttnError) as caught:
        attn.sdpa(ONES, ONES, ONES, softcap=-1.0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert (copy.field, copy.message, copy.status) == (
        caught.value.field, caught.value.message, caught.value.status)
