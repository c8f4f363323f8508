// The loops in double on 256-bit vectors.
#define CW_NAMESPACE avx2
#define CW_BYTES 32
#include "kernels-inl.h"
