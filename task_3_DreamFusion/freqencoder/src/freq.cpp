#include "freq.h"
