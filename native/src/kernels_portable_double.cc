// The loops in double on 128-bit vectors.
#define CW_NAMESPACE portable
#define CW_BYTES 16
#include "kernels-inl.h"
