// The kernels on 256-bit vectors, but for the loops in double.
#define CW_NAMESPACE avx2
#define CW_BYTES 32
#define CW_TABLE kAvx2
#include "kernels-inl.h"
