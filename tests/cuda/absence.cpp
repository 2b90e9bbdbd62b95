// No driver, or one that cannot serve: a clear status, and a CPU backend that works.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "scenario.hpp"
#include "scenarios.hpp"

namespace scenario {
namespace {

bool contains(const char *text, const std::string &part) {
  return std::string(text).find(part) != std::string::npos;
}

// Everything that asks for CUDA gets BACKEND_UNAVAILABLE, with `words` in the message.
void expect_unavailable(const std::vector<std::string> &words) {
  attn_error error = ATTN_ERROR_INIT;
  int32_t count = -1;
  EXPECT(attn_device_count(ATTN_BACKEND_CUDA, &count, &error) == ATTN_ERROR_BACKEND_UNAVAILABLE);
  EXPECT(count == 0);
  for (const std::string &word : words) EXPECT_IN(error.message, contains(error.message, word));

  error = ATTN_ERROR_INIT;
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = ATTN_BACKEND_CUDA;
  attn_context *context = nullptr;
  EXPECT(attn_context_create(&desc, &context, &error) != ATTN_OK);
  EXPECT(context == nullptr && error.message[0] != 0);

  // AUTO takes the CPU, and says nothing of it.
  desc.backend = ATTN_BACKEND_AUTO;
  error = ATTN_ERROR_INIT;
  EXPECT(attn_context_create(&desc, &context, &error) == ATTN_OK);
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  EXPECT(attn_context_query(context, &info, &error) == ATTN_OK);
  EXPECT(info.backend == ATTN_BACKEND_CPU);
  attn_context_destroy(context);
  expect_cpu_works();
}

// Starts this program anew, with one variable of its environment changed.
void expect_child_passes(const char *program, const char *mode, const char *variable,
                         const std::string &value) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(variable, value.c_str(), 1);
    execl(program, program, mode, nullptr);
    _exit(127);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

int without_driver() {
  run("in a process without driver", [] { expect_unavailable({"libcuda.so.1"}); });
  return all_passed() ? 0 : 1;
}

int without_device() {
  run("in a process without device", [] {
    expect_unavailable({"no CUDA device"});
    void *const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    EXPECT(driver != nullptr);  // it was started, so it stays
  });
  return all_passed() ? 0 : 1;
}

void absence(const char *program) {
  run("a libcuda.so.1 that is no library", [&] {
    char folder[] = "/tmp/attn-cuda-XXXXXX";
    EXPECT(mkdtemp(folder) != nullptr);
    const std::string file = std::string(folder) + "/libcuda.so.1";
    std::FILE *out = std::fopen(file.c_str(), "w");
    std::fputs("this is no library\n", out);
    std::fclose(out);
    expect_child_passes(program, "--without-driver", "LD_LIBRARY_PATH", folder);
    unlink(file.c_str());
    rmdir(folder);
  });
  run("a driver that is too old", [] {
    driver().version = 12080;
    expect_unavailable({"12.8", "13.0", "update the driver"});
    expect_balanced();
    EXPECT(driver().calls.empty());
  });
  run("a newer driver", [] {
    driver().version = 14010;
    const Life life = live();
    EXPECT_IN(life.error.message, life.status == ATTN_OK);
    expect_balanced();
  });
  const char *required[] = {
#define ATTN_REQUIRED(name, parameters) #name,
#define ATTN_OPTIONAL(name, parameters)
#include "backend/cuda/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED
  };
  for (const char *name : required) {
    run(std::string("a driver without ") + name, [&] {
      driver().missing = name;
      expect_unavailable({std::string("lacks ") + name, "13.0"});
      expect_balanced();
    });
  }
  const char *optional[] = {
#define ATTN_REQUIRED(name, parameters)
#define ATTN_OPTIONAL(name, parameters) #name,
#include "backend/cuda/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED
  };
  for (const char *name : optional) {
    run(std::string("a driver without the optional ") + name, [&] {
      driver().missing = name;
      const Life life = live();
      EXPECT_IN(life.error.message, life.status == ATTN_OK);
      EXPECT(driver().calls[name] == 0);
      expect_balanced();
    });
  }
  run("a driver without device stays loaded",
      [&] { expect_child_passes(program, "--without-device", "FAKE_CUDA_DEVICES", "0"); });
  run("all devices vanish", [] {
    int32_t count = 0;
    EXPECT(attn_device_count(ATTN_BACKEND_CUDA, &count, nullptr) == ATTN_OK && count == 2);
    driver().devices.clear();
    expect_unavailable({"no CUDA device"});
    attn_error error = ATTN_ERROR_INIT;
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CUDA;
    attn_context *context = nullptr;
    EXPECT(attn_context_create(&desc, &context, &error) == ATTN_ERROR_BACKEND_UNAVAILABLE);
    expect_balanced();
  });
  run("no device", [] {
    driver().devices.clear();
    expect_unavailable({"no CUDA device"});
    expect_balanced();
  });
  run("a driver that does not start", [] {
    driver().failing = "cuInit";
    expect_unavailable({"cuInit", "CUDA_ERROR_UNKNOWN", "the driver's words for 999"});
    expect_balanced();
  });
  run("a code without a name", [] {
    driver().failing = "cuInit";
    driver().failing_code = 12345;
    expect_unavailable({"cuInit", "12345"});
  });
  run("only devices that are too old", [] {
    for (fake::Device &device : driver().devices) device.major = 7, device.minor = 5;
    expect_unavailable({"sm_75", "Fake GPU", "sm_80"});
    expect_balanced();
  });
  run("one device is too old, the other serves", [] {
    driver().devices[0].major = 7;
    driver().devices[0].minor = 5;
    driver().devices[0].name = "Fake T4";
    attn_error error = ATTN_ERROR_INIT;
    int32_t count = 0;
    EXPECT(attn_device_count(ATTN_BACKEND_CUDA, &count, &error) == ATTN_OK);
    EXPECT(count == 2);  // as the driver numbers them
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CUDA;
    attn_context *context = nullptr;
    EXPECT(attn_context_create(&desc, &context, &error) == ATTN_ERROR_BACKEND_UNAVAILABLE);
    EXPECT_IN(error.message, contains(error.message, "Fake T4"));
    EXPECT(std::string(error.field) == "desc.device_index");
    desc.device_index = 1;
    EXPECT(attn_context_create(&desc, &context, &error) == ATTN_OK);
    attn_device_info info = ATTN_DEVICE_INFO_INIT;
    EXPECT(attn_context_query(context, &info, &error) == ATTN_OK);
    EXPECT(info.device_index == 1 && info.backend == ATTN_BACKEND_CUDA);
    attn_context_destroy(context);
    expect_balanced();
  });
}

}  // namespace scenario
