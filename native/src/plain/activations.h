// Activation functions, and their derivatives as functions of the activated value.
#ifndef CELLWEAVE_PLAIN_ACTIVATIONS_H_
#define CELLWEAVE_PLAIN_ACTIVATIONS_H_

#include <cmath>

#include "cellweave.h"

namespace cellweave {
namespace plain {

// Klambauer et al. 2017, the fixed point (0, 1).
constexpr double kSeluScale = 1.0507009873554805;
constexpr double kSeluAlpha = 1.6732632423543772;
// From here on softplus is the identity: what is missing is less than a float64 of this size can show.
constexpr int kSoftplusEnd = 40;
// Slopes of TF1 Keras's hard_sigmoid and of tf.nn.leaky_relu, which is a float32, whatever it multiplies.
constexpr double kHardSlope = 0.2;
constexpr float kLeakySlope = 0.2f;

// Comparisons are written so that NaN stays NaN, as torch has it.
template <typename Real>
Real clamp(Real x, Real low, Real high) {
  return x < low ? low : x > high ? high : x;
}

template <typename Real>
Real activate(int64_t activation, Real x) {
  switch (activation) {
    case CW_TANH: return std::tanh(x);
    case CW_SIGMOID: return Real(1) / (Real(1) + std::exp(-x));
    case CW_RELU: return x < 0 ? Real(0) : x;
    case CW_SOFTSIGN: return x / (Real(1) + std::fabs(x));
    case CW_SOFTPLUS: return x > kSoftplusEnd ? x : std::log1p(std::exp(x));
    case CW_ELU: return x > 0 ? x : std::expm1(x);
    case CW_SELU: return Real(kSeluScale) * (x > 0 ? x : Real(kSeluAlpha) * std::expm1(x));
    case CW_HARD_SIGMOID: return clamp(Real(kHardSlope) * x + Real(0.5), Real(0), Real(1));
    case CW_LEAKY_RELU: return x > 0 ? x : Real(kLeakySlope) * x;
    case CW_EXPONENTIAL: return std::exp(x);
    case CW_RELU6: return clamp(x, Real(0), Real(6));
    default: return x;
  }
}

template <typename Real>
Real slope(int64_t activation, Real y) {
  switch (activation) {
    case CW_TANH: return Real(1) - y * y;
    case CW_SIGMOID: return y * (Real(1) - y);
    case CW_RELU: return Real(y > 0);
    case CW_SOFTSIGN: return (Real(1) - std::fabs(y)) * (Real(1) - std::fabs(y));
    case CW_SOFTPLUS: return -std::expm1(-y);
    case CW_ELU: return y > 0 ? Real(1) : y + Real(1);
    case CW_SELU: return y < 0 ? y + Real(kSeluScale * kSeluAlpha) : Real(kSeluScale);
    case CW_HARD_SIGMOID: return y > 0 && y < 1 ? Real(kHardSlope) : Real(0);
    case CW_LEAKY_RELU: return y > 0 ? Real(1) : Real(kLeakySlope);
    case CW_EXPONENTIAL: return y;
    case CW_RELU6: return Real(y > 0 && y < 6);
    default: return Real(1);
  }
}

}  // namespace plain
}  // namespace cellweave
#endif
