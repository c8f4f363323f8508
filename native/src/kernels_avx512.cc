// The kernels on 512-bit vectors, but for the loops in double.
#define CW_NAMESPACE avx512
#define CW_BYTES 64
#define CW_TABLE kAvx512
#include "kernels-inl.h"
