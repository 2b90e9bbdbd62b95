//! Causal attention on a CUDA device, on a stream of its own; where there is none, on the CPU. Then the
//! result is checked.
//!
//! Run it in this repository with
//!   ATTN_LIB_DIR=build LD_LIBRARY_PATH=build \
//!     cargo run --manifest-path examples/rust/Cargo.toml --bin attn-example-cuda

use attn::{
    Context, DType, SdpaArgs, SdpaDesc, SdpaPlan, Status, Stream, Tensor, TensorMut, Workspace,
};
use std::error::Error;

const BATCH: usize = 2;
const SEQLEN: usize = 48;
const HEADS: usize = 8;
const KV_HEADS: usize = 2; // four query heads share a key head
const DIM: usize = 64;
const Q_SHAPE: [usize; 4] = [BATCH, SEQLEN, HEADS, DIM];
const K_SHAPE: [usize; 4] = [BATCH, SEQLEN, KV_HEADS, DIM];

fn main() -> Result<(), Box<dyn Error>> {
    let q = values(Q_SHAPE.iter().product(), 1);
    let k = values(K_SHAPE.iter().product(), 2);
    let v = values(K_SHAPE.iter().product(), 3);
    let mut out = vec![0.0f32; q.len()];

    // The problem by its limits: the plan serves every batch and length up to them.
    let desc = SdpaDesc::new(DType::FP32, HEADS as i32, DIM as i32)
        .num_kv_heads(KV_HEADS as i32)
        .limits(BATCH as i64, SEQLEN as i64, SEQLEN as i64)
        .causal();
    let context = match Context::cuda(0) {
        Err(error) if error.status() == Status::BACKEND_UNAVAILABLE => {
            println!("no CUDA device: ran on the CPU ({})", error.message());
            Context::cpu()?
        }
        other => other?,
    };
    let plan = context.sdpa(&desc)?;
    if context.backend() == attn::Backend::CUDA {
        on_gpu(&plan, &q, &k, &v, &mut out)?;
    } else {
        let mut args = SdpaArgs::new(
            Tensor::new(&q, Q_SHAPE)?,
            Tensor::new(&k, K_SHAPE)?,
            Tensor::new(&v, K_SHAPE)?,
            TensorMut::new(&mut out, Q_SHAPE)?,
        );
        plan.forward(&mut args, &mut plan.workspace()?)?;
    }

    let largest = largest_difference(&q, &k, &v, &out);
    println!(
        "{} on {}: largest difference from plain loops {largest:.2e}",
        plan.info()?.implementation,
        context.device()?.name
    );
    // Written so that NaN fails.
    if largest < 1e-5 {
        println!("ok");
        Ok(())
    } else {
        Err("the result is wrong".into())
    }
}

/// In the device's memory, in the order of a stream.
fn on_gpu(
    plan: &SdpaPlan,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
) -> Result<(), Box<dyn Error>> {
    // Loads kernels now, not at the first execute.
    plan.prepare()?;
    let info = plan.info()?;
    let gpu = cuda::Gpu::open(0)?;
    let [q_at, k_at, v_at] = [gpu.upload(q)?, gpu.upload(k)?, gpu.upload(v)?];
    let out_at = gpu.allocate(std::mem::size_of_val(out))?;
    let memory = gpu.allocate(info.workspace_bytes + info.workspace_alignment)?;
    let aligned = memory.next_multiple_of(info.workspace_alignment as u64);
    // SAFETY: the memory and the stream are the device's, and live until `download` has waited.
    unsafe {
        let mut workspace = Workspace::from_device(aligned, info.workspace_bytes);
        let mut args = SdpaArgs::new(
            Tensor::from_device(q_at, DType::FP32, Q_SHAPE)?,
            Tensor::from_device(k_at, DType::FP32, K_SHAPE)?,
            Tensor::from_device(v_at, DType::FP32, K_SHAPE)?,
            TensorMut::from_device(out_at, DType::FP32, Q_SHAPE)?,
        );
        let stream = Stream::from_raw(gpu.stream());
        // After the copies; it returns before the work is done.
        plan.forward_on(&mut args, &mut workspace, stream)?;
    }
    gpu.download(out, out_at)
}

/// A few calls of the CUDA driver, opened at run time, so that the example needs no CUDA toolkit to be
/// built. Yours would use a crate such as cudarc.
mod cuda {
    use std::cell::RefCell;
    use std::error::Error;
    use std::ffi::{c_char, c_int, c_void, CString};

    #[link(name = "dl")]
    extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    /// A device with a stream, and the memory that is freed with it.
    pub struct Gpu {
        library: *mut c_void,
        device: c_int,
        stream: *mut c_void,
        blocks: RefCell<Vec<u64>>,
    }

    /// Calls a function of the driver: `call!(library, "cuInit", u32 = 0)`.
    macro_rules! call {
        ($library:expr, $name:literal $(, $type:ty = $value:expr)*) => {{
            let function = symbol($library, $name)?;
            // SAFETY: the types are those of cuda.h.
            let code = unsafe {
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> c_int>(
                    function,
                )($($value),*)
            };
            match code {
                0 => Ok(()),
                code => Err(Box::<dyn Error>::from(format!(
                    concat!($name, " failed with CUDA error {}"),
                    code
                ))),
            }
        }};
    }

    fn symbol(library: *mut c_void, name: &str) -> Result<*mut c_void, Box<dyn Error>> {
        let c_name = CString::new(name)?;
        // SAFETY: the library is open, the name a C string.
        match unsafe { dlsym(library, c_name.as_ptr()) } {
            function if function.is_null() => Err(format!("{name} is missing").into()),
            function => Ok(function),
        }
    }

    impl Gpu {
        pub fn open(index: i32) -> Result<Gpu, Box<dyn Error>> {
            let name = CString::new("libcuda.so.1")?;
            // SAFETY: 2 is RTLD_NOW.
            let library = unsafe { dlopen(name.as_ptr(), 2) };
            if library.is_null() {
                return Err("libcuda.so.1 is missing".into());
            }
            let (mut device, mut context, mut stream) =
                (0, std::ptr::null_mut(), std::ptr::null_mut());
            call!(library, "cuInit", u32 = 0)?;
            call!(library, "cuDeviceGet", *mut c_int = &mut device, c_int = index)?;
            // The primary context, as the CUDA runtime uses it.
            call!(
                library,
                "cuDevicePrimaryCtxRetain",
                *mut *mut c_void = &mut context,
                c_int = device
            )?;
            call!(library, "cuCtxSetCurrent", *mut c_void = context)?;
            // 1: not ordered with the default stream.
            call!(
                library,
                "cuStreamCreate",
                *mut *mut c_void = &mut stream,
                u32 = 1
            )?;
            let blocks = RefCell::default();
            Ok(Gpu {
                library,
                device,
                stream,
                blocks,
            })
        }

        pub fn stream(&self) -> *mut c_void {
            self.stream
        }

        pub fn allocate(&self, bytes: usize) -> Result<u64, Box<dyn Error>> {
            let mut address = 0;
            call!(
                self.library,
                "cuMemAlloc_v2",
                *mut u64 = &mut address,
                usize = bytes.max(1)
            )?;
            self.blocks.borrow_mut().push(address);
            Ok(address)
        }

        pub fn upload(&self, data: &[f32]) -> Result<u64, Box<dyn Error>> {
            let bytes = std::mem::size_of_val(data);
            let address = self.allocate(bytes)?;
            call!(
                self.library,
                "cuMemcpyHtoDAsync_v2",
                u64 = address,
                *const c_void = data.as_ptr().cast(),
                usize = bytes,
                *mut c_void = self.stream
            )?;
            Ok(address)
        }

        /// Waits for all work of the stream.
        pub fn download(&self, data: &mut [f32], address: u64) -> Result<(), Box<dyn Error>> {
            call!(
                self.library,
                "cuMemcpyDtoHAsync_v2",
                *mut c_void = data.as_mut_ptr().cast(),
                u64 = address,
                usize = std::mem::size_of_val(data),
                *mut c_void = self.stream
            )?;
            call!(
                self.library,
                "cuStreamSynchronize",
                *mut c_void = self.stream
            )
        }

        fn close(&self) -> Result<(), Box<dyn Error>> {
            // An execute that failed half way may have left copies on their way.
            call!(
                self.library,
                "cuStreamSynchronize",
                *mut c_void = self.stream
            )?;
            for address in self.blocks.take() {
                call!(self.library, "cuMemFree_v2", u64 = address)?;
            }
            call!(
                self.library,
                "cuStreamDestroy_v2",
                *mut c_void = self.stream
            )?;
            call!(
                self.library,
                "cuDevicePrimaryCtxRelease_v2",
                c_int = self.device
            )
        }
    }

    impl Drop for Gpu {
        fn drop(&mut self) {
            if let Err(error) = self.close() {
                eprintln!("{error}");
            }
        }
    }
}

/// Reproducible values in [-1, 1).
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Compares with the definition of attention.
fn largest_difference(q: &[f32], k: &[f32], v: &[f32], out: &[f32]) -> f64 {
    let mut largest = 0.0f64;
    for b in 0..BATCH {
        for i in 0..SEQLEN {
            for h in 0..HEADS {
                let row = |heads: usize, token: usize, head: usize| {
                    let start = ((b * SEQLEN + token) * heads + head) * DIM;
                    start..start + DIM
                };
                let kv_head = h / (HEADS / KV_HEADS);
                // Causal: query i sees keys 0 to i.
                let weights: Vec<f64> = (0..=i)
                    .map(|j| {
                        let pairs = q[row(HEADS, i, h)]
                            .iter()
                            .zip(&k[row(KV_HEADS, j, kv_head)]);
                        let dot: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                        (dot / (DIM as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for (d, x) in out[row(HEADS, i, h)].iter().enumerate() {
                    let sum: f64 = (0..=i)
                        .map(|j| weights[j] * f64::from(v[row(KV_HEADS, j, kv_head)][d]))
                        .sum();
                    let difference = (f64::from(*x) - sum / total).abs();
                    largest = if difference.is_nan() {
                        difference
                    } else {
                        largest.max(difference)
                    };
                    if largest.is_nan() {
                        return largest;
                    }
                }
            }
        }
    }
    largest
}
