"""What strategies may use of numpy 2.5.5 and pandas 3.1.1. Written by `make exports`: edit its script instead."""

__all__ = ["LIBRARIES", "LIBRARY_EXPORTS"]

#: What runs strategies.
LIBRARIES = "Python 3.13, numpy 2.5.5, pandas 3.1.1"
#: In the form of the lists in `tasks.policy`.
LIBRARY_EXPORTS = """\
numpy: False_ ScalarType True_ abs absolute acos acosh add all allclose amax amin angle any append apply_along_axis
  apply_over_axes arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort
  argwhere around array array2string array_equal array_equiv array_repr array_split array_str asanyarray asarray
  asarray_chkfinite ascontiguousarray asfortranarray asin asinh asmatrix astype atan atan2 atanh atleast_1d atleast_2d
  atleast_3d average bartlett base_repr binary_repr bincount bitwise_and bitwise_count bitwise_invert bitwise_left_shift
  bitwise_not bitwise_or bitwise_right_shift bitwise_xor blackman block bool bool_ broadcast broadcast_arrays
  broadcast_shapes broadcast_to busday_count busday_offset busdaycalendar byte bytes_ c_ can_cast cbrt cdouble ceil
  character choose clip clongdouble column_stack common_type complex128 complex256 complex64 complexfloating compress
  concat concatenate conj conjugate convolve copy copysign copyto corrcoef correlate cos cosh count_nonzero cov cross
  csingle cumprod cumsum cumulative_prod cumulative_sum datetime64 datetime_as_string datetime_data deg2rad degrees
  delete diag diag_indices diag_indices_from diagflat diagonal diff digitize divide divmod dot double dsplit dstack
  dtype e ediff1d einsum einsum_path empty empty_like equal errstate euler_gamma exp exp2 expand_dims expm1 extract eye
  fabs fill_diagonal finfo fix flatiter flatnonzero flexible flip fliplr flipud float128 float16 float32 float64
  float_power floating floor floor_divide fmax fmin fmod format_float_positional format_float_scientific frexp
  frombuffer fromfunction fromiter frompyfunc fromstring full full_like gcd generic geomspace get_printoptions
  getbufsize geterr geterrcall gradient greater greater_equal half hamming hanning heaviside histogram histogram2d
  histogram_bin_edges histogramdd hsplit hstack hypot i0 identity iinfo imag in1d index_exp indices inexact inf inner
  insert int16 int32 int64 int8 int_ intc integer interp intersect1d intp invert is_busday isclose iscomplex
  iscomplexobj isdtype isfinite isfortran isin isinf isnan isnat isneginf isposinf isreal isrealobj isscalar issubdtype
  iterable ix_ kaiser kron lcm ldexp left_shift less less_equal lexsort linspace little_endian log log10 log1p log2
  logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logspace long longdouble longlong mask_indices
  matmul matrix matrix_transpose matvec max maximum may_share_memory mean median meshgrid mgrid min min_scalar_type
  minimum mintypecode mod modf moveaxis multiply nan nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean
  nanmedian nanmin nanpercentile nanprod nanquantile nanstd nansum nanvar ndarray ndenumerate ndim ndindex nditer
  negative nested_iters newaxis nextafter nonzero not_equal number object_ ogrid ones ones_like outer packbits pad
  partition percentile permute_dims pi piecewise place poly poly1d polyadd polyder polydiv polyfit polyint polymul
  polysub polyval positive pow power printoptions prod promote_types ptp put put_along_axis putmask quantile r_ rad2deg
  radians ravel ravel_multi_index real real_if_close reciprocal remainder repeat require reshape resize result_type
  right_shift rint roll rollaxis roots rot90 round s_ sctypeDict searchsorted select set_printoptions setbufsize
  setdiff1d seterr seterrcall setxor1d shape shares_memory short sign signbit signedinteger sin sinc single sinh size
  sort sort_complex spacing split sqrt square squeeze stack std str_ subtract sum swapaxes take take_along_axis tan tanh
  tensordot tile timedelta64 trace transpose trapezoid trapz tri tril tril_indices tril_indices_from trim_zeros triu
  triu_indices triu_indices_from true_divide trunc typecodes typename ubyte ufunc uint uint16 uint32 uint64 uint8 uintc
  uintp ulong ulonglong union1d unique unique_all unique_counts unique_inverse unique_values unpackbits unravel_index
  unsignedinteger unstack unwrap ushort vander var vdot vecdot vecmat vectorize vsplit vstack where zeros zeros_like
numpy.exceptions: AxisError ComplexWarning DTypePromotionError ModuleDeprecationWarning RankWarning TooHardError
  VisibleDeprecationWarning
numpy.fft: fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftfreq
  rfftn
numpy.lib:
numpy.lib.stride_tricks: sliding_window_view
numpy.linalg: LinAlgError cholesky cond cross det diagonal eig eigh eigvals eigvalsh inv lstsq matmul matrix_norm
  matrix_power matrix_rank matrix_transpose multi_dot norm outer pinv qr slogdet solve svd svdvals tensordot tensorinv
  tensorsolve trace vecdot vector_norm
numpy.polynomial: Chebyshev Hermite HermiteE Laguerre Legendre Polynomial set_default_printstyle
numpy.polynomial.polynomial: ABCPolyBase Polynomial polyadd polycompanion polyder polydiv polydomain polyfit
  polyfromroots polygrid2d polygrid3d polyint polyline polymul polymulx polyone polypow polyroots polysub polytrim
  polyval polyval2d polyval3d polyvalfromroots polyvalnd polyvander polyvander2d polyvander3d polyx polyzero
numpy.random: Generator PCG64 PCG64DXSM RandomState SFC64 SeedSequence beta binomial bytes chisquare choice default_rng
  dirichlet exponential f gamma geometric get_state gumbel hypergeometric laplace logistic lognormal logseries
  multinomial multivariate_normal negative_binomial noncentral_chisquare noncentral_f normal pareto permutation poisson
  power rand randint randn random random_integers random_sample ranf rayleigh sample seed shuffle standard_cauchy
  standard_exponential standard_gamma standard_normal standard_t triangular uniform vonmises wald weibull zipf
numpy.typing: ArrayLike DTypeLike NBitBase NDArray
pandas: ArrowDtype BooleanDtype Categorical CategoricalDtype CategoricalIndex DataFrame DateOffset DatetimeIndex
  DatetimeTZDtype Float32Dtype Float64Dtype Grouper Index IndexSlice Int16Dtype Int32Dtype Int64Dtype Int8Dtype Interval
  IntervalDtype IntervalIndex MultiIndex NA NaT NamedAgg Period PeriodDtype PeriodIndex RangeIndex Series SparseDtype
  StringDtype Timedelta TimedeltaIndex Timestamp UInt16Dtype UInt32Dtype UInt64Dtype UInt8Dtype array bdate_range col
  concat crosstab cut date_range describe_option factorize from_dummies get_dummies get_option infer_freq interval_range
  isna isnull json_normalize lreshape melt merge merge_asof merge_ordered notna notnull option_context options
  period_range pivot pivot_table qcut reset_option set_eng_float_format set_option timedelta_range to_datetime
  to_numeric to_timedelta unique wide_to_long
pandas.api:
pandas.api.indexers: FixedForwardWindowIndexer VariableOffsetWindowIndexer check_array_indexer
pandas.api.types: CategoricalDtype DatetimeTZDtype IntervalDtype PeriodDtype infer_dtype is_any_real_numeric_dtype
  is_array_like is_bool is_bool_dtype is_categorical_dtype is_complex is_complex_dtype is_datetime64_any_dtype
  is_datetime64_dtype is_datetime64_ns_dtype is_datetime64tz_dtype is_dict_like is_dtype_equal is_extension_array_dtype
  is_file_like is_float is_float_dtype is_hashable is_int64_dtype is_integer is_integer_dtype is_interval_dtype
  is_iterator is_list_like is_named_tuple is_number is_numeric_dtype is_object_dtype is_period_dtype is_re
  is_re_compilable is_scalar is_signed_integer_dtype is_sparse is_string_dtype is_timedelta64_dtype
  is_timedelta64_ns_dtype is_unsigned_integer_dtype pandas_dtype union_categoricals
pandas.errors: AbstractMethodError AttributeConflictWarning CSSWarning CategoricalConversionWarning
  ChainedAssignmentError ClosedFileError DataError DatabaseError DtypeWarning DuplicateLabelError EmptyDataError
  IncompatibilityWarning IncompatibleFrequency IndexingError IntCastingNaNError InvalidColumnName InvalidComparison
  InvalidIndexError InvalidVersion LossySetitemError MergeError NoBufferPresent NullFrequencyError
  NumExprClobberingError NumbaUtilError OptionError OutOfBoundsDatetime OutOfBoundsTimedelta Pandas4Warning
  Pandas5Warning PandasChangeWarning PandasDeprecationWarning PandasFutureWarning PandasPendingDeprecationWarning
  ParserError ParserWarning PerformanceWarning PossibleDataLossError PossiblePrecisionLoss PyperclipException
  PyperclipWindowsException SpecificationError UndefinedVariableError UnsortedIndexError UnsupportedFunctionCall
  ValueLabelTypeMismatch
pandas.offsets: BDay BHalfYearBegin BHalfYearEnd BMonthBegin BMonthEnd BQuarterBegin BQuarterEnd BYearBegin BYearEnd
  BaseOffset BusinessDay BusinessHour BusinessMonthBegin BusinessMonthEnd CBMonthBegin CBMonthEnd CDay CustomBusinessDay
  CustomBusinessHour CustomBusinessMonthBegin CustomBusinessMonthEnd DateOffset Day Easter FY5253 FY5253Quarter
  HalfYearBegin HalfYearEnd Hour LastWeekOfMonth Micro Milli Minute MonthBegin MonthEnd Nano QuarterBegin QuarterEnd
  Second SemiMonthBegin SemiMonthEnd Tick Week WeekOfMonth YearBegin YearEnd
pandas.tseries:
pandas.tseries.frequencies: infer_freq to_offset
pandas.tseries.holiday: AbstractHolidayCalendar BaseOffset DateOffset DatetimeIndex Day Easter EasterMonday FR
  GoodFriday Holiday MO PerformanceWarning SA SU Series TH TU Timestamp USColumbusDay USFederalHolidayCalendar
  USLaborDay USMartinLutherKingJr USMemorialDay USPresidentsDay USThanksgivingDay WE after_nearest_workday
  before_nearest_workday concat date_range datetime get_calendar holiday_calendars nearest_workday next_monday
  next_monday_or_tuesday next_workday previous_friday previous_workday register sunday_to_monday timedelta
  weekend_to_monday
pandas.tseries.offsets: BDay BHalfYearBegin BHalfYearEnd BMonthBegin BMonthEnd BQuarterBegin BQuarterEnd BYearBegin
  BYearEnd BaseOffset BusinessDay BusinessHour BusinessMonthBegin BusinessMonthEnd CBMonthBegin CBMonthEnd CDay
  CustomBusinessDay CustomBusinessHour CustomBusinessMonthBegin CustomBusinessMonthEnd DateOffset Day Easter FY5253
  FY5253Quarter HalfYearBegin HalfYearEnd Hour LastWeekOfMonth Micro Milli Minute MonthBegin MonthEnd Nano QuarterBegin
  QuarterEnd Second SemiMonthBegin SemiMonthEnd Tick Week WeekOfMonth YearBegin YearEnd
"""
