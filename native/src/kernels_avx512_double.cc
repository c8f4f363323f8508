// The loops in double on 512-bit vectors.
#define CW_NAMESPACE avx512
#define CW_BYTES 64
#include "kernels-inl.h"
