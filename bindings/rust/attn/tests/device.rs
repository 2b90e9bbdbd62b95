//! What goes to a GPU, without one: on the CPU the "device's memory" is memory, so addresses from
//! `from_device` must give what slices give, and streams must reach the library, which refuses them.

mod common;

use attn::{
    Backend, Context, DType, Gradients, Int32s, MergeArgs, MergeDesc, SdpaArgs, SdpaBackwardArgs,
    Status, Stream, Tensor, TensorMut, Workspace,
};
use common::{size, Random, Shape};

const SHAPE: Shape =
    Shape { batch: 2, seqlen_q: 9, seqlen_k: 21, heads_q: 4, heads_k: 2, dim: 16, dim_v: 16 };

fn address<T>(data: &[T]) -> u64 {
    data.as_ptr() as usize as u64
}

fn address_mut<T>(data: &mut [T]) -> u64 {
    data.as_mut_ptr() as usize as u64
}

/// A workspace at an address, and the memory that it is of.
fn workspace(bytes: usize, alignment: usize) -> (Vec<u8>, Workspace) {
    let mut memory = vec![0u8; bytes + alignment];
    let aligned = address_mut(&mut memory).next_multiple_of(alignment as u64);
    // SAFETY: the memory is returned with it.
    let workspace = unsafe { Workspace::from_device(aligned, bytes) };
    (memory, workspace)
}

#[test]
fn addresses_and_streams_reach_the_library() {
    let mut random = Random::new(71);
    let q: Vec<f32> = random.values(size(&SHAPE.q()));
    let k: Vec<f32> = random.values(size(&SHAPE.k()));
    let v: Vec<f32> = random.values(size(&SHAPE.k()));
    let used = [21, 8];
    let (mut expected, mut expected_lse) =
        (vec![0f32; size(&SHAPE.out())], vec![0f32; size(&SHAPE.lse())]);
    let (mut out, mut lse) = (expected.clone(), expected_lse.clone());

    let desc = SHAPE.desc(DType::FP32).seqused_k().return_lse().dropout(0.25);
    let plan = Context::cpu().unwrap().sdpa(&desc).unwrap();
    let info = plan.info().unwrap();
    // k from its last head to its first.
    let Shape { seqlen_k, heads_k, dim, .. } = SHAPE;
    let strides =
        [(seqlen_k * heads_k * dim) as isize, (heads_k * dim) as isize, -(dim as isize), 1];
    let mut args = SdpaArgs::new(
        Tensor::new(&q, SHAPE.q()).unwrap(),
        Tensor::strided(&k, (heads_k - 1) * dim, SHAPE.k(), strides).unwrap(),
        Tensor::new(&v, SHAPE.k()).unwrap(),
        TensorMut::new(&mut expected, SHAPE.out()).unwrap(),
    )
    .lse(TensorMut::new(&mut expected_lse, SHAPE.lse()).unwrap())
    .seqused_k(&used)
    .rng_state(&[3, 4]);
    plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();

    let (_memory, mut scratch) = workspace(info.workspace_bytes, info.workspace_alignment);
    let state = [3u64, 4];
    // SAFETY: host memory that lives until the end, and a plan for the CPU.
    unsafe {
        let of_k = address(&k) + 4 * ((heads_k - 1) * dim) as u64;
        let mut args = SdpaArgs::new(
            Tensor::from_device(address(&q), DType::FP32, SHAPE.q()).unwrap(),
            Tensor::from_device_strided(of_k, DType::FP32, SHAPE.k(), strides).unwrap(),
            Tensor::from_device(address(&v), DType::FP32, SHAPE.k()).unwrap(),
            TensorMut::from_device(address_mut(&mut out), DType::FP32, SHAPE.out()).unwrap(),
        )
        .lse(TensorMut::from_device(address_mut(&mut lse), DType::FP32, SHAPE.lse()).unwrap())
        .seqused_k(Int32s::from_device(address(&used), 2))
        .rng_state_from_device(address(&state));
        plan.forward_on(&mut args, &mut scratch, Stream::DEFAULT).unwrap();

        let stream = Stream::from_raw(0x7f00_1234_5678usize as *mut _);
        let error = plan.forward_on(&mut args, &mut scratch, stream).unwrap_err();
        assert_eq!((error.status(), error.field()), (Status::INVALID_ARGUMENT, "stream"));
        let (_memory, mut large) = workspace(info.tune_workspace_bytes, info.workspace_alignment);
        assert!(plan.tune_on(&mut args, &mut large, stream).is_err());
        plan.tune_on(&mut args, &mut large, Stream::DEFAULT).unwrap();

        let mut args = args.seqused_k(Int32s::from_device(address(&used), 1));
        let error = plan.forward_on(&mut args, &mut scratch, Stream::DEFAULT).unwrap_err();
        assert_eq!(error.field(), "args.seqused_k");
    }
    assert_eq!((out, lse), (expected, expected_lse));
}

#[test]
fn backward_and_merge_take_streams() {
    let data = vec![0.5f32; size(&SHAPE.k())];
    let q = vec![0.5f32; size(&SHAPE.q())];
    let lse = vec![0.5f32; size(&SHAPE.lse())];
    let mut dq = q.clone();
    let context = Context::cpu().unwrap();
    let desc = SHAPE.desc(DType::FP32).gradients(Gradients::Q);
    let plan = context.sdpa_backward(&desc).unwrap();
    let view = Tensor::new(&q, SHAPE.q()).unwrap();
    let kv = Tensor::new(&data, SHAPE.k()).unwrap();
    let mut args = SdpaBackwardArgs::new(view, kv, kv, view, view)
        .lse(Tensor::new(&lse, SHAPE.lse()).unwrap())
        .dq(TensorMut::new(&mut dq, SHAPE.q()).unwrap());
    let mut scratch = plan.workspace().unwrap();
    // SAFETY: host memory and a plan for the CPU, which refuses the stream.
    unsafe {
        let stream = Stream::from_raw(16 as *mut _);
        let error = plan.backward_on(&mut args, &mut scratch, stream).unwrap_err();
        assert_eq!(error.field(), "stream");
        plan.backward_on(&mut args, &mut scratch, Stream::DEFAULT).unwrap();
        let mut large = plan.tune_workspace().unwrap();
        assert_eq!(plan.tune_on(&mut args, &mut large, stream).unwrap_err().field(), "stream");

        let desc = MergeDesc::new(DType::FP32, 1, 4).limits(1, 2);
        let merge = context.merge(&desc).unwrap();
        let (partial, lse, mut out) = ([1f32; 8], [0f32; 2], [0f32; 4]);
        let mut args = MergeArgs::new(
            Tensor::new(&partial, [1, 2, 1, 4]).unwrap(),
            Tensor::new(&lse, [1, 2, 1]).unwrap(),
            TensorMut::new(&mut out, [1, 1, 4]).unwrap(),
        );
        let mut scratch = merge.workspace().unwrap();
        let error = merge.merge_on(&mut args, &mut scratch, stream).unwrap_err();
        assert_eq!(error.field(), "stream");
        merge.merge_on(&mut args, &mut scratch, Stream::DEFAULT).unwrap();
        assert_eq!(out, [1f32; 4]);
    }
}

/// The device is chosen at the context, and a backend that is not there says why.
#[test]
fn the_device_is_selected() {
    match attn::device_count(Backend::CUDA) {
        Ok(count) if count > 0 => {
            for index in 0..count as i32 {
                let info = Context::cuda(index).unwrap().device().unwrap();
                assert_eq!((info.backend, info.device_index), (Backend::CUDA, index));
            }
            let error = Context::cuda(count as i32).unwrap_err();
            assert_eq!(error.status(), Status::INVALID_ARGUMENT);
            let plan = Context::cuda(0).unwrap().sdpa(&SHAPE.desc(DType::FP16)).unwrap();
            let error = plan.workspace().unwrap_err();
            assert_eq!(error.status(), Status::UNSUPPORTED);
        }
        _ => {
            let error = Context::cuda(0).unwrap_err();
            assert_eq!(error.status(), Status::BACKEND_UNAVAILABLE);
            assert!(!error.message().is_empty());
        }
    }
}
