// What a working driver is asked for, and how often.
#include <cstdio>
#include <thread>
#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/device.hpp"
#include "scenario.hpp"
#include "scenarios.hpp"

namespace scenario {
namespace {

using attn::cuda::CudaDevice;
using attn::cuda::Image;
using attn::cuda::Kernel;
using attn::cuda::LaunchShape;

// What passes for a fatbin.
alignas(8) const unsigned char kFatbin[] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0};
constinit const Image kImage(kFatbin, kFatbin + sizeof kFatbin);
constinit const Image kOtherImage(kFatbin, kFatbin + sizeof kFatbin);
constexpr Kernel kFirst = {"first", &kImage};
constexpr Kernel kSecond = {"second", &kImage};
constexpr Kernel kOther = {"other", &kOtherImage};

const attn::ErrorSink kNowhere(nullptr);

struct OpenDevice {
  explicit OpenDevice(int32_t index = 0) {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.device_index = index;
    EXPECT(attn::cuda::open(desc, device, kNowhere) == ATTN_OK);
  }
  const CudaDevice &operator*() const { return attn::cuda::cuda_of(*device); }
  const CudaDevice *operator->() const { return &**this; }

  std::unique_ptr<attn::Device> device;
};

// A fake stream: handed on, never looked at.
void *const kStream = reinterpret_cast<void *>(uintptr_t{0x5750});

void contexts() {
  run("two contexts on a device share its primary context and modules", [] {
    {
      OpenDevice one, two;
      EXPECT(driver().contexts == 1);
      const int params = 1;
      EXPECT(one->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
      EXPECT(two->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
      EXPECT(two->launch(kSecond, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
      EXPECT(driver().calls["cuModuleLoadDataEx"] == 1);
      EXPECT(driver().calls["cuModuleGetFunction"] == 2);
      EXPECT(driver().launches.size() == 3);
    }
    EXPECT(driver().calls["cuDevicePrimaryCtxRetain"] == 1);
    EXPECT(driver().calls["cuDevicePrimaryCtxRelease"] == 1);
    EXPECT(driver().calls["cuModuleUnload"] == 1);
    expect_balanced();
  });
  run("a device is opened again after it was closed", [] {
    const int params = 1;
    for (int round = 1; round <= 3; round++) {
      OpenDevice device;
      EXPECT(device->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
      EXPECT(driver().calls["cuModuleLoadDataEx"] == round);
    }
    expect_balanced();
  });
  run("each device has its own context and modules", [] {
    OpenDevice one(0), two(1);
    EXPECT(driver().contexts == 2);
    const int params = 1;
    EXPECT(one->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
    EXPECT(two->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
    EXPECT(driver().modules == 2);
    EXPECT(driver().launches[0].device == 0 && driver().launches[1].device == 1);
  });
  for (const char *whose : {"of its own", "of another device"}) {
    run(std::string("a caller's current context, ") + whose + ", stays current", [&] {
      void *const mine = std::string(whose) == "of its own" ? fake_call<void *>("fake_own_context")
                                                            : fake_call<void *>("fake_primary", 1);
      OpenDevice other(1);  // keeps the primary context of device 1 alive
      EXPECT(fake_call<int>("cuCtxPushCurrent", mine) == 0);
      OpenDevice device;
      const int params = 1;
      const auto expect_mine = [&] {
        void *current = nullptr;
        fake_call<int>("cuCtxGetCurrent", &current);
        EXPECT(current == mine && stack_depth() == 1);
      };
      expect_mine();
      EXPECT(device->load(kFirst, 0, kNowhere) == ATTN_OK);
      expect_mine();
      EXPECT(device->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, kStream, kNowhere) == ATTN_OK);
      expect_mine();
      EXPECT(driver().launches[0].device == 0);
      double us = 0;
      EXPECT(device->time([] { return int32_t{ATTN_OK}; }, nullptr, us, kNowhere) == ATTN_OK);
      expect_mine();
      driver().failing = "cuLaunchKernel";
      EXPECT(device->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, kStream, kNowhere) != ATTN_OK);
      expect_mine();
      device.device.reset();
      expect_mine();
    });
  }
  run("the primary context, if it is current, is left as it is", [] {
    OpenDevice device;
    fake_call<int>("cuCtxPushCurrent", fake_call<void *>("fake_primary", 0));
    const int before = driver().calls["cuCtxPushCurrent"];
    const int params = 1;
    EXPECT(device->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
    EXPECT(driver().calls["cuCtxPushCurrent"] == before);
    EXPECT(stack_depth() == 1);
  });
}

void launches() {
  run("a launch hands on shape, stream and parameters", [] {
    OpenDevice device;
    const int params = 77;
    driver().on_launch = [](const fake::Launch &launch) {
      EXPECT(*static_cast<const int *>(launch.params) == 77);
    };
    EXPECT(device->launch(kOther, {{5, 6, 7}, 256, 1024}, &params, kStream, kNowhere) == ATTN_OK);
    const fake::Launch &launch = driver().launches.at(0);
    EXPECT(launch.entry == "other" && launch.stream == kStream);
    EXPECT(launch.grid[0] == 5 && launch.grid[1] == 6 && launch.grid[2] == 7);
    EXPECT(launch.block[0] == 256 && launch.block[1] == 1 && launch.block[2] == 1);
    EXPECT(launch.dynamic_smem == 1024);
    EXPECT(device->launch(kOther, {{1, 1, 1}, 32, 0}, &params, nullptr, kNowhere) == ATTN_OK);
    EXPECT(driver().launches.at(1).stream == nullptr);
  });
  run("an empty grid launches nothing", [] {
    OpenDevice device;
    driver().calls.clear();
    for (const LaunchShape &shape : {LaunchShape{{0, 1, 1}, 32, 0}, LaunchShape{{1, 0, 1}, 32, 0},
                                     LaunchShape{{1, 1, 0}, 32, 0}}) {
      EXPECT(device->launch(kFirst, shape, nullptr, nullptr, kNowhere) == ATTN_OK);
    }
    EXPECT(driver().calls.empty());
  });
  run("a prepared launch asks the driver for nothing but the launch", [] {
    OpenDevice device;
    const int params = 1;
    EXPECT(device->load(kFirst, 100 * 1024, kNowhere) == ATTN_OK);
    driver().calls.clear();
    EXPECT(device->launch(kFirst, {{1, 1, 1}, 32, 100 * 1024}, &params, nullptr, kNowhere) ==
           ATTN_OK);
    const std::map<std::string, int> expected = {{"cuCtxGetCurrent", 1},
                                                 {"cuCtxPushCurrent", 1},
                                                 {"cuLaunchKernel", 1},
                                                 {"cuCtxPopCurrent", 1}};
    EXPECT(driver().calls == expected);
  });
  run("shared memory is allowed for as it grows, and no more than there is", [] {
    OpenDevice device;
    const int params = 1;
    const auto launch = [&](uint32_t smem, attn_error *error) {
      return device->launch(kFirst, {{1, 1, 1}, 32, smem}, &params, nullptr,
                            attn::ErrorSink(error));
    };
    EXPECT(launch(100 * 1024, nullptr) == ATTN_OK);
    EXPECT(launch(50 * 1024, nullptr) == ATTN_OK);
    EXPECT(driver().calls["cuFuncSetAttribute"] == 1);
    EXPECT(launch(227 * 1024, nullptr) == ATTN_OK);
    EXPECT(driver().calls["cuFuncSetAttribute"] == 2);
    EXPECT(driver().dynamic_smem["first"] == 227 * 1024);
    attn_error error = ATTN_ERROR_INIT;
    EXPECT(launch(228 * 1024, &error) == ATTN_ERROR_DEVICE);
    EXPECT(error.backend_code == 1);
    EXPECT_IN(error.message, std::string(error.message).find("233472 bytes") != std::string::npos);
    driver().failing = "cuFuncSetAttribute";
    EXPECT(device->load(kOther, 100 * 1024, attn::ErrorSink(&error)) == ATTN_ERROR_DEVICE);
    driver().failing.clear();
    EXPECT(device->load(kOther, 100 * 1024, attn::ErrorSink(&error)) == ATTN_OK);
  });
  run("a failing load tells what the driver's compiler said, and can be repeated", [] {
    OpenDevice device;
    driver().failing = "cuModuleLoadDataEx";
    driver().failing_code = 218;
    driver().jit_log = "ptxas fatal: unsupported .version 9.9" + std::string(500, '!');
    attn_error error = ATTN_ERROR_INIT;
    EXPECT(device->load(kFirst, 0, attn::ErrorSink(&error)) == ATTN_ERROR_DEVICE);
    EXPECT(error.backend_code == 218);
    const std::string message = error.message;
    for (const char *part : {"first", "sm_90", "unsupported .version", "words for 218"}) {
      EXPECT_IN(message, message.find(part) != std::string::npos);
    }
    driver().failing.clear();
    EXPECT(device->load(kFirst, 0, attn::ErrorSink(&error)) == ATTN_OK);
  });
  run("an error of earlier work is named as such", [] {
    OpenDevice device;
    const int params = 1;
    driver().failing = "cuLaunchKernel";
    driver().failing_code = 700;
    attn_error error = ATTN_ERROR_INIT;
    EXPECT(device->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, nullptr, attn::ErrorSink(&error)) ==
           ATTN_ERROR_DEVICE);
    EXPECT_IN(error.message, std::string(error.message).find("earlier") != std::string::npos);
  });
  run("many threads load and launch at once", [] {
    OpenDevice device;
    std::vector<std::thread> threads;
    std::atomic<int> good = 0;
    for (int t = 0; t < 8; t++) {
      threads.emplace_back([&] {
        const int params = 1;
        for (uint32_t i = 0; i < 200; i++) {
          for (const Kernel *kernel : {&kFirst, &kSecond, &kOther}) {
            good += device->launch(*kernel, {{1, 1, 1}, 32, i * 1024}, &params, nullptr,
                                   kNowhere) == ATTN_OK;
          }
        }
        if (stack_depth() != 0) good = -1000000;
      });
    }
    for (std::thread &thread : threads) thread.join();
    EXPECT(good == 8 * 200 * 3);
    EXPECT(driver().calls["cuModuleLoadDataEx"] == 2);
    EXPECT(driver().calls["cuModuleGetFunction"] == 3);
    device.device.reset();
    expect_balanced();
  });
}

void library() {
  run("a whole use of the library", [] {
    const Life life = live(ATTN_BACKEND_CUDA, kStream);
    EXPECT_IN(life.error.message, life.status == ATTN_OK);
    EXPECT_IN(life.implementation, life.implementation.starts_with("cuda/sdpa/forward/"));
    EXPECT(life.launches_of_execute > 0);
    for (const fake::Launch &launch : driver().launches) {
      EXPECT_IN(launch.entry, launch.stream == kStream && launch.entry.starts_with("attn_"));
    }
    expect_balanced();
    expect_cpu_works();
  });
  run("once prepared, execute only launches", [] {
    expect_prepared_execute_only_launches();
    expect_balanced();
  });
  run("AUTO takes the first GPU", [] {
    const Life life = live(ATTN_BACKEND_AUTO);
    EXPECT_IN(life.error.message, life.status == ATTN_OK);
    EXPECT(!driver().launches.empty());
    expect_balanced();
  });
  run("what cannot be asked of a GPU is refused", [] {
    attn_error error = ATTN_ERROR_INIT;
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CUDA;
    attn_context *context = nullptr;
    for (const int32_t index : {-1, 2, 1000000}) {
      desc.device_index = index;
      EXPECT(attn_context_create(&desc, &context, &error) == ATTN_ERROR_INVALID_ARGUMENT);
      EXPECT(std::string(error.field) == "desc.device_index");
      EXPECT_IN(error.message, std::string(error.message).find("2 devices") != std::string::npos);
      attn_device_info info = ATTN_DEVICE_INFO_INIT;
      EXPECT(attn_device_query(ATTN_BACKEND_CUDA, index, &info, &error) ==
             ATTN_ERROR_INVALID_ARGUMENT);
    }
    desc.device_index = 0;
    desc.num_threads = 4;
    EXPECT(attn_context_create(&desc, &context, &error) == ATTN_ERROR_INVALID_ARGUMENT);
    EXPECT(std::string(error.field) == "desc.num_threads");
    expect_balanced();
  });
  run("a device's description", [] {
    attn_device_info info = ATTN_DEVICE_INFO_INIT;
    EXPECT(attn_device_query(ATTN_BACKEND_CUDA, 1, &info, nullptr) == ATTN_OK);
    EXPECT(std::string(info.name) == "Fake GPU 1");
    EXPECT(std::string(info.architecture) == "sm_90");
    EXPECT(info.num_units == 132 && info.memory_bytes == uint64_t{80} << 30);
    EXPECT(info.backend == ATTN_BACKEND_CUDA && info.device_index == 1);
    OpenDevice device;
    EXPECT(device->num_sms() == 132 && device->compute_capability() == 90);
    EXPECT(device->max_dynamic_smem() == 227 * 1024 && device->smem_per_sm() == 228 * 1024);
  });
  run("time() is the median of what the events say", [] {
    OpenDevice device;
    const int params = 1;
    double us = 0;
    const auto execute = [&] {
      return device->launch(kFirst, {{1, 1, 1}, 32, 0}, &params, kStream, kNowhere);
    };
    EXPECT(device->time(execute, kStream, us, kNowhere) == ATTN_OK);
    EXPECT(us == 10000);  // a launch takes the fake 10 ms
    device.device.reset();
    expect_balanced();
  });
}

// The driver's own part is next to nothing here; the fake's book-keeping is counted in.
[[maybe_unused]] void cost() {
  run("an execute costs the host far below 3 us", [] {
    const double us = cost_of_execute();
    std::printf("  an execute on the fake driver: %.2f us\n", us);
    EXPECT_IN(std::to_string(us), us < 3);
    expect_balanced();
  });
}

}  // namespace

void use() {
  contexts();
  launches();
  library();
#ifndef ATTN_SANITIZED  // whose run time costs more than what is measured
  cost();
#endif
}

}  // namespace scenario
