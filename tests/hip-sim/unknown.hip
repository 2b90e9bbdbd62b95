// An instruction that the interpreter does not know: loading must fail, and name it.
extern "C" __attribute__((global)) void unknown(unsigned *out) {
  asm volatile("s_sethalt 0");
  *out = 1;
}
