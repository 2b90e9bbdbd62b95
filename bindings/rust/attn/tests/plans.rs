//! Contexts, plans, errors and threads.

mod common;

use attn::{
    Backend, Context, DType, Layout, LogLevel, PlanOptions, SdpaArgs, SdpaBackwardPlan, SdpaDesc,
    SdpaPlan, Status, Tensor, TensorMut, Workspace,
};
use common::{assert_close, size, wide, Random, Shape};
use std::sync::{Arc, Mutex};

const SHAPE: Shape =
    Shape { batch: 1, seqlen_q: 8, seqlen_k: 24, heads_q: 4, heads_k: 4, dim: 16, dim_v: 16 };

fn desc() -> SdpaDesc {
    SHAPE.desc(DType::FP32)
}

#[test]
fn devices() {
    assert_eq!(attn::device_count(Backend::CPU).unwrap(), 1);
    let info = attn::device_info(Backend::CPU, 0).unwrap();
    assert_eq!(info.backend, Backend::CPU);
    assert!(info.num_units >= 1 && !info.name.is_empty(), "{info:?}");
    let context = Context::builder().backend(Backend::CPU).num_threads(1).build().unwrap();
    assert_eq!(context.device().unwrap().num_units, 1);
    assert_eq!(context.backend(), Backend::CPU);

    let error = attn::device_info(Backend::CPU, 1).unwrap_err();
    assert_eq!(error.status(), Status::INVALID_ARGUMENT);
    let error = Context::builder().backend(Backend(77)).build().unwrap_err();
    assert_eq!(error.status(), Status::INVALID_ARGUMENT);
    assert!(error.message().contains("77"), "{error}");
    assert_eq!(error.field(), "desc.backend");
    let error = Context::builder().num_threads(-1).build().unwrap_err();
    assert_eq!(error.field(), "desc.num_threads");
}

#[test]
fn errors_name_the_field() {
    let context = Context::cpu().unwrap();
    let error = context.sdpa(&desc().num_kv_heads(3)).unwrap_err();
    assert_eq!(error.status(), Status::INVALID_ARGUMENT);
    assert_eq!(error.field(), "desc.num_kv_heads");
    assert!(error.message().contains('3') && error.message().contains('4'), "{error}");
    assert!(error.to_string().ends_with("(ATTN_ERROR_INVALID_ARGUMENT)"), "{error}");

    let error = context.sdpa(&desc().softmax_scale(f32::NAN)).unwrap_err();
    assert_eq!(error.field(), "desc.softmax_scale");
    let error = context.sdpa(&SHAPE.desc(DType::FP16).allow_tf32()).unwrap_err();
    assert_eq!(error.field(), "desc.flags");
    assert!(error.message().contains("fp16"), "{error}");
    let error = context.sdpa_supported(&desc().dropout(1.5)).unwrap_err();
    assert_eq!(error.field(), "desc.dropout_p");
    let error = context.sdpa_backward_supported(&desc().num_kv_heads(3)).unwrap_err();
    assert_eq!(error.field(), "desc.num_kv_heads");

    let error = context.sdpa(&desc().silu(24.0).return_lse()).unwrap_err();
    assert_eq!(error.status(), Status::UNSUPPORTED, "{error}");
    assert_eq!(error.field(), "desc.flags");
    assert!(error.message().contains("SILU"), "{error}");

    let mut newer = desc();
    newer.raw_mut().flags |= 1 << 63;
    assert_eq!(context.sdpa(&newer).unwrap_err().field(), "desc.flags");

    let wish = PlanOptions::new().implementation("cpu/sdpa/forward/nonesuch");
    let error = context.sdpa_with(&desc(), &wish).unwrap_err();
    assert!(error.field().contains("implementation"), "{error:?}");
    let error = context.sdpa_with(&desc(), &PlanOptions::new().tuning("a\0b")).unwrap_err();
    assert_eq!(error.field(), "options.tuning");
}

fn forward(plan: &SdpaPlan, workspace: &mut Workspace, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let q: Vec<f32> = random.values(size(&SHAPE.q()));
    let k: Vec<f32> = random.values(size(&SHAPE.k()));
    let mut out = vec![f32::NAN; size(&SHAPE.out())];
    let mut args = SdpaArgs::new(
        Tensor::new(&q, SHAPE.q()).unwrap(),
        Tensor::new(&k, SHAPE.k()).unwrap(),
        Tensor::new(&k, SHAPE.v()).unwrap(),
        TensorMut::new(&mut out, SHAPE.out()).unwrap(),
    );
    plan.forward(&mut args, workspace).unwrap();
    let expected = common::forward(SHAPE, &wide(&q), &wide(&k), &wide(&k), common::full, None);
    assert_close(&out, &expected.out);
    out
}

#[test]
fn wrong_arguments_leave_the_output_alone() {
    let context = Context::cpu().unwrap();
    let plan = context.sdpa(&desc()).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let data = vec![0.5f32; size(&SHAPE.k())];
    let mut out = vec![7.0f32; size(&SHAPE.out())];
    let q = Tensor::new(&data[..size(&SHAPE.q())], SHAPE.q()).unwrap();
    let k = Tensor::new(&data, SHAPE.k()).unwrap();
    let wrong = Tensor::new(&data, [1, 24, 8, 8]).unwrap();

    let view = TensorMut::new(&mut out, SHAPE.out()).unwrap();
    let error = plan.forward(&mut SdpaArgs::new(q, wrong, k, view), &mut workspace).unwrap_err();
    assert_eq!(error.status(), Status::INVALID_ARGUMENT);
    assert!(error.field().starts_with("args.k"), "{error:?}");
    assert!(error.message().contains('8') && error.message().contains('4'), "{error}");

    // An option that the plan does not have.
    let view = TensorMut::new(&mut out, SHAPE.out()).unwrap();
    let mut args = SdpaArgs::new(q, k, k, view).bias(wrong);
    let error = plan.forward(&mut args, &mut workspace).unwrap_err();
    assert!(error.field().starts_with("args.bias"), "{error:?}");

    // Arrays of the wrong length never reach the library.
    let view = TensorMut::new(&mut out, SHAPE.out()).unwrap();
    let mut args = SdpaArgs::new(q, k, k, view).seqused_k(&[1, 2, 3]);
    let error = plan.forward(&mut args, &mut workspace).unwrap_err();
    assert_eq!(error.field(), "args.seqused_k");
    assert!(error.message().contains("has 3 entries"), "{error}");

    assert!(out.iter().all(|x| *x == 7.0));
}

/// What arrays say is checked too, so that safe code cannot make the library read astray.
#[test]
fn hostile_arrays_are_refused() {
    let context = Context::cpu().unwrap();
    let data = vec![0.5f32; 8 * 4 * 16];
    let mut out = vec![7.0f32; data.len()];
    let ragged = desc().q_layout(Layout::RAGGED).kv_layout(Layout::RAGGED).limits(2, 8, 8);
    let plan = context.sdpa(&ragged).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let view = Tensor::new(&data, [8, 4, 16]).unwrap();
    for cu_seqlens in [[0, 9, 8], [0, -3, 8], [1, 4, 8], [0, 4, 1 << 30]] {
        let good = [0, 4, 8];
        for (cu_q, cu_k) in [(&cu_seqlens, &good), (&good, &cu_seqlens)] {
            let target = TensorMut::new(&mut out, [8, 4, 16]).unwrap();
            let mut args =
                SdpaArgs::new(view, view, view, target).cu_seqlens_q(cu_q).cu_seqlens_k(cu_k);
            let error = plan.forward(&mut args, &mut workspace).unwrap_err();
            assert!(error.field().starts_with("args.cu_seqlens"), "{error:?}");
        }
    }
    assert!(out.iter().all(|x| *x == 7.0));

    let paged = desc().limits(1, 8, 8).paged(Layout::PAGED_TABLE, 2);
    let plan = context.sdpa(&paged).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let q = Tensor::new(&data, [1, 8, 4, 16]).unwrap();
    let pool = Tensor::new(&data, [4, 2, 4, 16]).unwrap();
    for (entries, used) in [([0, 1, 2, 4], 8), ([0, 1, 2, i32::MAX], 8), ([0, 1, 2, 3], 9)] {
        let seqused = [used];
        let target = TensorMut::new(&mut out, [1, 8, 4, 16]).unwrap();
        let mut args = SdpaArgs::new(q, pool, pool, target)
            .seqused_k(&seqused)
            .block_table(Tensor::new(&entries, [1, 4]).unwrap());
        let error = plan.forward(&mut args, &mut workspace).unwrap_err();
        assert_eq!(error.status(), Status::INVALID_ARGUMENT, "{error:?}");
    }
    assert!(out.iter().all(|x| *x == 7.0));

    // Block lists: a count beyond the list, a block beyond the keys.
    let plan = context.sdpa(&desc().limits(1, 8, 8).block_sparse(4, 4)).unwrap();
    let mut workspace = plan.workspace().unwrap();
    for (counts, indices) in [([3, 1], [0, 1, 0, 1]), ([-1, 1], [0; 4]), ([2, 1], [0, 9, 0, 0])] {
        let target = TensorMut::new(&mut out, [1, 8, 4, 16]).unwrap();
        let mut args = SdpaArgs::new(q, q, q, target)
            .block_counts(Tensor::new(&counts, [1, 1, 2]).unwrap())
            .block_indices(Tensor::new(&indices, [1, 1, 2, 2]).unwrap());
        let error = plan.forward(&mut args, &mut workspace).unwrap_err();
        assert!(error.field().starts_with("args.block_"), "{error:?}");
    }
    assert!(out.iter().all(|x| *x == 7.0));
}

#[test]
fn a_small_workspace_is_refused() {
    let context = Context::cpu().unwrap();
    // Split keys need somewhere to put their parts; find a plan that wants a workspace at all.
    let plan = context.sdpa(&desc()).unwrap();
    let info = plan.info().unwrap();
    assert!(info.workspace_alignment.is_power_of_two());
    let backward = context.sdpa_backward(&desc()).unwrap();
    let needs = backward.info().unwrap().workspace_bytes;
    assert!(needs > 0, "the backward pass needs a workspace");
    let data = vec![0.5f32; size(&SHAPE.k())];
    let lse = vec![0.5f32; size(&SHAPE.lse())];
    let mut grad = vec![7.0f32; size(&SHAPE.k()) * 2 + size(&SHAPE.q())];
    let (dq, rest) = grad.split_at_mut(size(&SHAPE.q()));
    let (dk, dv) = rest.split_at_mut(size(&SHAPE.k()));
    let q = Tensor::new(&data[..size(&SHAPE.q())], SHAPE.q()).unwrap();
    let k = Tensor::new(&data, SHAPE.k()).unwrap();
    let mut args = attn::SdpaBackwardArgs::new(q, k, k, q, q)
        .lse(Tensor::new(&lse, SHAPE.lse()).unwrap())
        .dq(TensorMut::new(dq, SHAPE.q()).unwrap())
        .dk(TensorMut::new(dk, SHAPE.k()).unwrap())
        .dv(TensorMut::new(dv, SHAPE.v()).unwrap());
    let mut small = Workspace::new(needs - 1, 64).unwrap();
    let error = backward.backward(&mut args, &mut small).unwrap_err();
    assert_eq!(error.status(), Status::WORKSPACE, "{error}");
    assert!(error.message().contains(&needs.to_string()), "{error}");
    backward.backward(&mut args, &mut backward.workspace().unwrap()).unwrap();
}

#[test]
fn implementations_and_tuning() {
    let context = Context::cpu().unwrap();
    let plan = context.sdpa(&desc()).unwrap();
    plan.prepare().unwrap();
    let info = plan.info().unwrap();
    let names = plan.implementations().unwrap();
    assert_eq!(names[0], info.implementation);
    assert!(!info.asynchronous && !info.capturable);
    assert!(info.tune_workspace_bytes >= info.workspace_bytes);
    assert!(names.iter().any(|name| name.ends_with("reference")), "{names:?}");

    for name in &names {
        let wish = PlanOptions::new().implementation(name);
        let plan = context.sdpa_with(&desc(), &wish).unwrap();
        assert_eq!(&plan.info().unwrap().implementation, name);
        forward(&plan, &mut plan.workspace().unwrap(), 1);

        // An exported choice makes the next plan choose the same.
        let line = plan.export().unwrap();
        assert!(line.contains(name.as_str()), "{line}");
        let tuned = context.sdpa_with(&desc(), &PlanOptions::new().tuning(&line)).unwrap();
        assert_eq!(&tuned.info().unwrap().implementation, name);
    }

    let data = vec![0.5f32; size(&SHAPE.k())];
    let mut out = vec![f32::NAN; size(&SHAPE.out())];
    let q = Tensor::new(&data[..size(&SHAPE.q())], SHAPE.q()).unwrap();
    let k = Tensor::new(&data, SHAPE.k()).unwrap();
    let view = TensorMut::new(&mut out, SHAPE.out()).unwrap();
    let mut args = SdpaArgs::new(q, k, k, view);
    let tuned = plan.tune(&mut args, &mut plan.tune_workspace().unwrap()).unwrap();
    assert!(names.contains(&tuned.info().unwrap().implementation));
    assert!(out.iter().all(|x| (x - 0.5).abs() < 1e-6));
    forward(&tuned, &mut tuned.workspace().unwrap(), 2);
}

#[test]
fn threads_share_a_plan() {
    let context = Context::builder().backend(Backend::CPU).num_threads(2).build().unwrap();
    let plan = context.sdpa(&desc()).unwrap();
    drop(context); // the plan keeps it
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let plan = &plan;
            scope.spawn(move || {
                let mut workspace = plan.workspace().unwrap();
                for round in 0..20 {
                    forward(plan, &mut workspace, thread * 100 + round);
                }
            });
        }
    });
    // A plan may end on another thread than it was made on.
    let clone = plan.clone();
    std::thread::spawn(move || drop(plan)).join().unwrap();
    forward(&clone, &mut clone.workspace().unwrap(), 3);
}

#[test]
fn handles_and_views_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Context>();
    check::<SdpaPlan>();
    check::<SdpaBackwardPlan>();
    check::<attn::MergePlan>();
    check::<Workspace>();
    check::<Tensor<'static>>();
    check::<TensorMut<'static>>();
    check::<SdpaArgs<'static>>();
    check::<attn::MergeArgs<'static>>();
    check::<attn::Error>();
}

#[test]
fn log_lines_arrive() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let context = Context::builder()
        .backend(Backend::CPU)
        .log(LogLevel::DEBUG, move |level, line| {
            sink.lock().unwrap().push((level, line.to_string()));
            panic!("a panic in the sink stays there");
        })
        .build()
        .unwrap();
    let plan = context.sdpa(&desc()).unwrap();
    let name = plan.info().unwrap().implementation;
    let lines = lines.lock().map(|lines| lines.clone()).unwrap_or_else(|e| e.into_inner().clone());
    assert!(lines.iter().any(|(_, line)| line.contains(&name)), "{lines:?}");
}

#[test]
fn an_empty_batch_is_nothing_to_do() {
    let context = Context::cpu().unwrap();
    let plan = context.sdpa(&desc()).unwrap();
    let none: [f32; 0] = [];
    let view = Tensor::new(&none, [0, 8, 4, 16]).unwrap();
    let mut out: [f32; 0] = [];
    let target = TensorMut::new(&mut out, [0, 8, 4, 16]).unwrap();
    plan.forward(&mut SdpaArgs::new(view, view, view, target), &mut plan.workspace().unwrap())
        .unwrap();
}
