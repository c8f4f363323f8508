// The kernels on 128-bit vectors, but for the loops in double.
#define CW_NAMESPACE portable
#define CW_BYTES 16
#define CW_TABLE kPortable
#include "kernels-inl.h"
